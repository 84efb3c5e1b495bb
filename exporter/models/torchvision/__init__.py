"""Models of torchvision: its classifiers, and fine-tuned files of them."""
