"""Fused Triton kernels for CUDA, as operators of PyTorch: the form `merge=kernels` of a program.

Importing this package registers the operators `torch.ops.exporter.*`. On a GPU each launches its kernels, which
`torch.export`, `torch.compile` and AOTInductor see; on the CPU each computes its definition in `reduction`, which is
what the kernels are tested against.
"""

from exporter.kernels.attention import attend_with_kernel
from exporter.kernels.matching import decide_pitome, decide_tome
from exporter.kernels.residual import add_norm, merge_add_norm, merge_by_kernel

__all__ = [
    "add_norm",
    "attend_with_kernel",
    "decide_pitome",
    "decide_tome",
    "merge_add_norm",
    "merge_by_kernel",
]
