"""The OpenVINO target: OpenVINO's own files, run by its runtime, on a CPU unless asked otherwise."""

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.forms import Forms
from exporter.signature import Signature
from exporter.targets.openvino.options import OpenVinoOptions
from exporter.targets.runner import Runner
from exporter.targets.target import Artifact, EmitRequest, Target

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


def _check_available() -> None:
    from exporter.targets.openvino.library import load_library

    load_library()


def _describe() -> str:
    from exporter.targets.openvino.device import devices
    from exporter.targets.openvino.library import load_library

    found = ", ".join(
        f"{name} ({what}; {', '.join(precisions)})" for name, (what, precisions) in devices().items()
    )
    return f"OpenVINO {load_library().get_version().partition('-')[0]}: {found}"


def _emit(program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
    from exporter.targets.openvino.emit import emit

    return emit(TARGET, program, request, folder)


def _open(path: Path, signature: Signature, options: OpenVinoOptions) -> Runner:
    from exporter.targets.openvino.engine import check_options
    from exporter.targets.openvino.runner import OpenVinoRunner

    check_options(options)
    return OpenVinoRunner(path=path, signature=signature, options=options, threads=options.threads)


TARGET = Target(
    name="openvino",
    precisions=("fp32", "fp16", "bf16", "int8"),  # of files; `emit` refuses what a device does not compute
    distributions=("openvino",),
    extra="openvino",
    lint="openvino",
    options=OpenVinoOptions,
    # Product, softmax and product become one kernel of the CPU plugin, with the mask as an addend. Its TopK forgets
    # that ONNX's keeps the order of ties, so ranks are counted.
    forms={"cpu": Forms(ranking="count")},
    device=lambda _: "cpu",  # where arrays are given and returned, whatever OpenVINO's device is
    check_available=_check_available,
    describe=_describe,
    emit=_emit,
    open=_open,
)
