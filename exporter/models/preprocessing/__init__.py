"""How a photo becomes a model's input."""
