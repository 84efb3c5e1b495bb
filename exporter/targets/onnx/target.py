"""The ONNX target."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.targets.onnx.runner import OnnxRunner
from exporter.targets.target import Artifact, EmitRequest, Runner, TensorSpec

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


@dataclass(frozen=True, kw_only=True)
class OnnxTarget:
    """Standard operators of one opset, run by ONNX Runtime."""

    name: str = "onnx"
    precisions: tuple[str, ...] = ("fp32", "fp16")
    """ONNX has no bfloat16 convolution before opset 22, and ONNX Runtime no kernels for it on a CPU."""

    def check_available(self) -> None:
        """Always: onnx and onnxruntime are core dependencies."""

    def describe(self) -> str:
        """ONNX Runtime's version and execution providers."""
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}"

    def emit(self, program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
        """Write `model.onnx`; see `emit.emit`."""
        from exporter.targets.onnx.emit import emit

        return emit(self.name, program, request, folder)

    def open(self, path: Path, input: TensorSpec, outputs: tuple[TensorSpec, ...]) -> Runner:
        """ONNX Runtime over a file; nothing of what made the file is imported."""
        return OnnxRunner(path=path, input=input, outputs=outputs)


TARGET = OnnxTarget()
