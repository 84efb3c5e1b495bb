"""The ONNX target."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.forms import Forms, Precision
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.runner import OnnxRunner
from exporter.targets.target import Artifact, EmitRequest, Runner, TensorSpec

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


@dataclass(frozen=True, kw_only=True)
class OnnxTarget:
    """Standard operators of one opset, run by ONNX Runtime."""

    name: str = "onnx"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    options: type = OnnxOptions
    forms: Forms = field(default_factory=Forms)
    """On a CPU, all forms of mask, selection and attention are within 2 % of each other; these are fewest operators."""

    def check_available(self) -> None:
        """Always: onnx and onnxruntime are core dependencies; a provider is checked when a model is opened."""

    def describe(self) -> str:
        """ONNX Runtime's version and execution providers, and what the CPU's does with bfloat16."""
        import onnxruntime

        providers = ", ".join(onnxruntime.get_available_providers())
        return f"ONNX Runtime {onnxruntime.__version__}: {providers}; bf16 on the CPU computes in fp32 and rounds"

    def emit(self, program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
        """Write `model.onnx`; see `emit.emit`."""
        from exporter.targets.onnx.emit import emit

        return emit(self.name, program, request, folder)

    def open(self, path: Path, input: TensorSpec, outputs: tuple[TensorSpec, ...], options: Any) -> Runner:
        """ONNX Runtime over a file; nothing of what made the file is imported."""
        return OnnxRunner(path=path, input=input, outputs=outputs, options=options)


TARGET = OnnxTarget()
