"""NVIDIA Triton Inference Server: `config.pbtxt`, and `model.py` for its python backend."""
