"""What a recipe may say about the Torch-TensorRT target."""

from dataclasses import dataclass
from typing import Literal

from exporter.local_path import LocalPath


@dataclass(frozen=True, kw_only=True)
class TorchTrtOptions:
    """How Torch-TensorRT builds, and what it may leave to PyTorch.

    Attributes:
        max_fallback: operators that may run in PyTorch instead of TensorRT, each of which may cut the engine in two.
        min_block_size: convertible operators in a row that are worth an engine of their own.
        optimization_level: of TensorRT's builder, 0 (fast to build) to 5.
        workspace_mb: memory that a kernel may use beside its inputs and outputs; 0 for all there is.
        hardware_compatible: an engine for every GPU from Ampere on instead of this one's generation, slower.
        timing_cache: file that keeps measured kernel times between builds; none keeps them for one build.
        matches: `kept` ships the engine that parity was verified on, which returns the matches beside the outputs,
            for runners to ignore; `dropped` builds a second time, without them.
        cuda_graph: whether the runner records each engine's kernels once, and replays the recording.
    """

    max_fallback: int = 0
    min_block_size: int = 5
    optimization_level: int = 3
    workspace_mb: int = 0
    hardware_compatible: bool = False
    timing_cache: LocalPath | None = None
    matches: Literal["kept", "dropped"] = "kept"
    cuda_graph: bool = False
