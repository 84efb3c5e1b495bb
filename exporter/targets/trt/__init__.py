"""TensorRT, 10.14 to 11: an engine built from ONNX by TensorRT's own Python builder, and run from torch tensors.

An engine is tied to its GPU and to its TensorRT; the ONNX that it was built from travels, and stays in the bundle.
"""
