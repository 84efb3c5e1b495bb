"""Triton code: what runs on the GPU. Launched by the modules of `kernels`, and by nothing else."""
