"""The AOTInductor target."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.forms import Forms, Precision
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.runner import AotiRunner
from exporter.targets.target import Artifact, EmitRequest, Runner, TensorSpec

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


@dataclass(frozen=True, kw_only=True)
class AotiTarget:
    """A shared library compiled ahead of time by TorchInductor, run by PyTorch."""

    name: str = "aoti"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
    options: type = AotiOptions
    forms: Forms = field(default_factory=Forms)
    """Not measured; the stable sort is PyTorch's own."""

    def check_available(self) -> None:
        """A package is compiled C++ on every device.

        Raises:
            TargetUnavailableError: no C++ compiler runs here.
        """
        from exporter.targets.aoti.compile import compiler

        compiler()

    def describe(self) -> str:
        """PyTorch's version, what its CPU code is compiled for, its GPU, and the C++ compiler."""
        import torch

        from exporter.targets.aoti.compile import compiler

        gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
        capability = torch.backends.cpu.get_cpu_capability()
        return f"PyTorch {torch.__version__}: CPU {capability}{gpu}; {compiler()}"

    def emit(self, program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
        """Write `model_aoti.pt2`; see `emit.emit`.

        Raises:
            TargetUnavailableError: a GPU is asked for and there is none, or the compiler fails.
        """
        import torch

        from exporter.errors import TargetUnavailableError
        from exporter.targets.aoti.emit import emit

        if request.options.device == "cuda" and not torch.cuda.is_available():
            raise TargetUnavailableError(
                f"target aoti: aoti.device is cuda, and PyTorch {torch.__version__} sees no GPU here; "
                "use --engine-option aoti.device=cpu"
            )
        return emit(self.name, program, request, folder)

    def open(self, path: Path, input: TensorSpec, outputs: tuple[TensorSpec, ...], options: Any) -> Runner:
        """PyTorch over a package; nothing of the compiler is needed."""
        return AotiRunner(path=path, input=input, outputs=outputs, device=options.device)


TARGET = AotiTarget()
