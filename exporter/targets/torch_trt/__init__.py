"""Torch-TensorRT: TensorRT engines inside of a PyTorch program, built from the exported program and not from ONNX.

The library needs an NVIDIA GPU and TensorRT's own libraries even to be imported.
"""
