"""Models of open_clip: its registry, folders and repositories, and files of its training code."""
