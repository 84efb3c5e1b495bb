"""TensorRT for RTX, 1.7 or later: engines for RTX GPUs, built from ONNX on any machine, with or without a GPU.

One engine runs on several generations of GPUs; the last step of its compilation is done where it is loaded. It is
built and run as in `targets.trt`, by NVIDIA's other package.
"""
