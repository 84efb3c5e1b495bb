"""Fused Triton kernels for CUDA, as operators of PyTorch: the form `merge=kernels` of a program.

Importing this package registers the operators `torch.ops.exporter.*`. On a GPU each launches its kernels, which
`torch.export`, `torch.compile` and AOTInductor see; on the CPU each computes its definition in `reduction`, which is
what the kernels are tested against.
"""

from importlib.util import find_spec

from exporter.errors import TargetUnavailableError

if find_spec("triton") is None:
    raise TargetUnavailableError(
        "lowering: merge=kernels needs Triton, which comes with PyTorch for CUDA on Linux; "
        "pip install triton, or use --lowering merge=operators"
    )

from exporter.kernels import attention, matching, residual

__all__ = ["attention", "matching", "residual"]
