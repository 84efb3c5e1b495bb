"""What a recipe may say about the TensorRT for RTX target."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from exporter.targets.trt.batch_range import BatchRange

HardwareCompatibility = Literal["ampere_plus", "turing", "ampere", "ada", "blackwell"]


@dataclass(frozen=True, kw_only=True)
class RtxOptions(BatchRange):
    """How TensorRT for RTX builds an engine, and how the engine is run.

    Attributes:
        min_batch: smallest batch of a program with a free batch axis; null for a static batch. The three go together.
        opt_batch: the batch that kernels are chosen for.
        max_batch: largest batch; more images than that are run in several batches.
        tf32: allow fp32 products with inputs rounded to 10 bits of mantissa: faster, and outside of fp32's parity.
        hardware_compatibility: GPUs that the engine runs on: Ampere and newer (compute capability 8.6, 8.9 and 12.x),
            or one generation. Turing (7.5) has no fp32 products, so that no merging model can be built for it.
        cuda_graph: replay a captured CUDA graph instead of launching kernel by kernel.
    """

    target: ClassVar[str] = "trt-rtx"

    tf32: bool = False
    hardware_compatibility: HardwareCompatibility = "ampere_plus"
    cuda_graph: bool = False
