"""The OpenVINO target."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.forms import Forms, Precision
from exporter.targets.openvino.options import OpenVinoOptions
from exporter.targets.target import Artifact, EmitRequest, Runner, TensorSpec

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


@dataclass(frozen=True, kw_only=True)
class OpenVinoTarget:
    """OpenVINO's own files, run by its runtime, on a CPU unless asked otherwise."""

    name: str = "openvino"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    """What there are files for; a device may do less, which `emit` says before anything is built."""
    options: type = OpenVinoOptions
    forms: Forms = field(default_factory=lambda: Forms(ranking="count"))
    """Product, softmax and product become one kernel of the CPU plugin, with the mask as an addend. Its TopK forgets
    that ONNX's keeps the order of ties, so ranks are counted."""

    def check_available(self) -> None:
        """Raise unless the library is there; see `library.load_library`."""
        from exporter.targets.openvino.library import load_library

        load_library()

    def describe(self) -> str:
        """OpenVINO's version, and its devices with the precisions that they compute in."""
        from exporter.targets.openvino.device import devices
        from exporter.targets.openvino.library import load_library

        found = ", ".join(
            f"{name} ({what}; {', '.join(precisions)})" for name, (what, precisions) in devices().items()
        )
        return f"OpenVINO {load_library().get_version().partition('-')[0]}: {found}"

    def emit(self, program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
        """Write `openvino/model.xml` and `openvino/model.bin`; see `emit.emit`."""
        from exporter.targets.openvino.emit import emit

        return emit(self.name, program, request, folder)

    def open(self, path: Path, input: TensorSpec, outputs: tuple[TensorSpec, ...], options: Any) -> Runner:
        """OpenVINO over its files; nothing of what made them is imported."""
        from exporter.targets.openvino.engine import check_options
        from exporter.targets.openvino.runner import OpenVinoRunner

        check_options(options)
        return OpenVinoRunner(
            path=path, input=input, outputs=outputs, options=options, threads=options.threads
        )


TARGET = OpenVinoTarget()
