"""The Torch-TensorRT target."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.forms import Forms, Precision
from exporter.targets.target import Artifact, EmitRequest, Runner, TensorSpec
from exporter.targets.torch_trt.options import TorchTrtOptions
from exporter.targets.torch_trt.runner import TorchTrtRunner

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


@dataclass(frozen=True, kw_only=True)
class TorchTrtTarget:
    """TensorRT engines inside of a saved PyTorch program."""

    name: str = "torch-trt"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
    options: type = TorchTrtOptions
    forms: Forms = field(default_factory=Forms)
    """Not measured: it has not run on a GPU."""

    def check_available(self) -> None:
        """The library, its TensorRT and a GPU are needed to build and to run.

        Raises:
            TargetUnavailableError: naming what is missing.
        """
        from exporter.targets.torch_trt.library import load_library

        load_library()

    def describe(self) -> str:
        """The versions of Torch-TensorRT and TensorRT, and the GPU.

        Raises:
            TargetUnavailableError: one of them is missing.
        """
        import torch

        from exporter.targets.torch_trt.library import load_library, versions

        found = versions(load_library())
        return (
            f"Torch-TensorRT {found['torch_tensorrt']}, TensorRT {found['tensorrt']}: "
            f"{torch.cuda.get_device_name()}, compute capability {found['compute_capability']}"
        )

    def emit(self, program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
        """Write `model_trt.pt2`; see `emit.emit`."""
        from exporter.targets.torch_trt.emit import emit

        return emit(self.name, program, request, folder)

    def open(self, path: Path, input: TensorSpec, outputs: tuple[TensorSpec, ...], options: Any) -> Runner:
        """Torch-TensorRT over a saved program; nothing of the compiler is imported."""
        return TorchTrtRunner(path=path, input=input, outputs=outputs, cuda_graph=options.cuda_graph)


TARGET = TorchTrtTarget()
