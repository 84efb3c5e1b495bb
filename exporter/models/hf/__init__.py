"""Models of Hugging Face transformers: folders and repositories, whose towers are found by rule."""
