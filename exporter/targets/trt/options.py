"""What a recipe may say about the TensorRT target."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from exporter.errors import UsageError
from exporter.local_path import LocalPath
from exporter.targets.trt.batch_range import BatchRange

MOST_BUILDER_LEVEL = 5

HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]


@dataclass(frozen=True, kw_only=True)
class TrtOptions(BatchRange):
    """How TensorRT builds an engine, and how the engine is run.

    Attributes:
        min_batch: smallest batch of a program with a free batch axis; null for a static batch. The three go together.
        opt_batch: the batch that kernels are chosen for.
        max_batch: largest batch; more images than that are run in several batches.
        timing_cache: file of measured kernel times, read if it is there and written after the build; it belongs to
            one TensorRT version and one kind of GPU.
        workspace_mb: memory limit for scratch buffers, in MiB; null for all of the GPU's.
        builder_level: how long to look for fast kernels, 0 to 5; TensorRT's default is 3.
        tf32: allow fp32 products with inputs rounded to 10 bits of mantissa: faster, and outside of fp32's parity.
        hardware_compatibility: GPUs that the engine runs on: those of the model that it was built on (`none`), of the
            same compute capability, or Ampere and newer; the wider, the slower.
        version_compatible: let later TensorRT versions run the engine. It then holds host code, which is only
            executed where this option is set as well.
        strip_plan: leave the weights out of the engine; they are put back from the ONNX beside it on loading.
        refit: let the weights be replaced by others later.
        cuda_graph: replay a captured CUDA graph instead of launching kernel by kernel.
    """

    target: ClassVar[str] = "trt"

    timing_cache: LocalPath | None = None
    workspace_mb: int | None = None
    builder_level: int = 3
    tf32: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False
    strip_plan: bool = False
    refit: bool = False
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        """Refuse what no machine can build.

        Raises:
            UsageError: a number out of range, or options that exclude each other.
        """
        super().__post_init__()
        if not 0 <= self.builder_level <= MOST_BUILDER_LEVEL:
            raise UsageError(
                f"trt.builder_level: expected 0 to {MOST_BUILDER_LEVEL}, got {self.builder_level}"
            )
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise UsageError(f"trt.workspace_mb: expected at least 1, got {self.workspace_mb}")
        if self.builder_level == 0 and self.timing_cache is not None:
            raise UsageError(
                "trt.timing_cache: TensorRT does not use one at builder_level 0; "
                "expected builder_level 1 to 5, or no timing_cache"
            )
