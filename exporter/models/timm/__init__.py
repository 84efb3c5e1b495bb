"""Models of timm: its registry, folders that it saved, repositories of the hub, and fine-tuned files."""
