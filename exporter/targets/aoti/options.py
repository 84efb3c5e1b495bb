"""What a recipe may say about the AOTInductor target."""

from dataclasses import dataclass
from typing import Literal

from exporter.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AotiOptions:
    """How AOTInductor compiles a package, and for which machines.

    Attributes:
        device: that the package runs on.
        instructions: of an x86 CPU, that the package is made for: all that this machine has (`native`), with the
            weights laid out for its matrix kernels; or those of every x86 server of the last ten years (`avx2`), with
            the weights as they are, which makes the package portable and slower.
        max_autotune: time several kernels for every product of matrices and take the fastest; minutes of compiling.
        matches: `kept` ships the code that parity was verified on, which returns the matches beside the outputs,
            for runners to ignore; `dropped` compiles a second time, without them.
        cuda_graph: on a GPU and at a fixed batch, call the package by replaying one recorded CUDA graph, which is one
            launch in place of one per kernel.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    instructions: Literal["native", "avx2"] = "native"
    max_autotune: bool = False
    matches: Literal["kept", "dropped"] = "kept"
    cuda_graph: bool = True

    def __post_init__(self) -> None:
        """Refuse an option that says nothing on the device asked for.

        Raises:
            UsageError: instructions of a CPU for a GPU.
        """
        if self.device == "cuda" and self.instructions != "native":
            raise UsageError(f"aoti.instructions: expected native on a GPU, got {self.instructions}")
