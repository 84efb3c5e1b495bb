"""What a recipe may say about the TensorRT target."""

from dataclasses import dataclass
from typing import Literal

from exporter.errors import UsageError
from exporter.local_path import LocalPath

MOST_BUILDER_LEVEL = 5

HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]


@dataclass(frozen=True, kw_only=True)
class TrtOptions:
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

    min_batch: int | None = None
    opt_batch: int | None = None
    max_batch: int | None = None
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
        self._check_profile()
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

    @property
    def profile(self) -> tuple[int, int, int] | None:
        """Smallest, best and largest batch, or None for a static batch."""
        given = (self.min_batch, self.opt_batch, self.max_batch)
        smallest, best, largest = given
        if smallest is None or best is None or largest is None:
            return None
        return smallest, best, largest

    def _check_profile(self) -> None:
        given = {"min_batch": self.min_batch, "opt_batch": self.opt_batch, "max_batch": self.max_batch}
        missing = [name for name, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            raise UsageError(
                f"trt.{missing[0]}: expected all of min_batch, opt_batch and max_batch, or none; it is missing"
            )
        profile = self.profile
        if profile is not None and not 1 <= profile[0] <= profile[1] <= profile[2]:
            raise UsageError(
                f"trt.min_batch, opt_batch, max_batch: expected 1 <= min <= opt <= max, got {profile}"
            )
