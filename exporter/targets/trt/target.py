"""The TensorRT target."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.forms import Forms, Precision
from exporter.targets.target import Artifact, EmitRequest, Runner, TensorSpec
from exporter.targets.trt.options import TrtOptions
from exporter.targets.trt.runner import TrtRunner

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


@dataclass(frozen=True, kw_only=True)
class TrtTarget:
    """An engine built from ONNX by TensorRT's Python builder, for the GPU that is here."""

    name: str = "trt"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    options: type = TrtOptions
    forms: Forms = field(default_factory=lambda: Forms(mask="expanded", ranking="count"))
    """Not measured: no GPU has run it. The scale is on q and the mask is over queries and keys, as TensorRT's pages ask
    of attention that is fused; no order among ties is promised there."""

    def check_available(self) -> None:
        """TensorRT's package, in a supported version, and a GPU that torch can use.

        Raises:
            TargetUnavailableError: one of them is missing; with the line that installs it.
        """
        from exporter.targets.trt import device, library

        library.tensorrt()
        device.current_device()

    def describe(self) -> str:
        """TensorRT's version and the GPU."""
        from exporter.targets.trt import device, library

        self.check_available()
        here = device.current_device()
        version = library.tensorrt().__version__
        return f"TensorRT {version}: {here.name}, compute capability {here.capability_text}"

    def emit(self, program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
        """Write `model_trt.onnx` and `model.engine`; see `emit.emit`."""
        from exporter.targets.trt.emit import emit

        return emit(self.name, program, request, folder)

    def prepare(self, program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
        """Write `model_trt.onnx` and the script that builds an engine from it elsewhere; see `prepare.prepare`."""
        from exporter.targets import PREPARED
        from exporter.targets.trt.prepare import prepare

        return prepare(PREPARED[self.name], program, request, folder)

    def open(self, path: Path, input: TensorSpec, outputs: tuple[TensorSpec, ...], options: Any) -> Runner:
        """TensorRT over an engine; nothing of what made it is imported."""
        return TrtRunner(path=path, input=input, outputs=outputs, options=options)


TARGET = TrtTarget()
