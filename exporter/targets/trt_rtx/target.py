"""The TensorRT for RTX target: an engine for RTX GPUs, built from ONNX on any machine."""

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.forms import Forms
from exporter.signature import Signature
from exporter.targets.runner import Runner
from exporter.targets.target import Artifact, EmitRequest, Prepared, Target
from exporter.targets.trt_rtx.options import RtxOptions
from exporter.targets.trt_rtx.product import NOT_RUN, RTX

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


def _check_available() -> None:
    """The package, in a supported version; a GPU is needed to run an engine only."""
    RTX.load()


def _describe() -> str:
    from exporter.targets.trt import device
    from exporter.targets.trt_rtx.gpus import obstacle

    name, here = f"{RTX.title} {RTX.load().__version__}", device.find_device()
    reason = obstacle(here, "turing") and obstacle(here, "ampere_plus")
    if here is None or reason:
        return f"{name}: builds engines, which do not run here: {reason}"
    return f"{name}: {here.name}, compute capability {here.capability_text}"


def _emit(program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
    from exporter.targets.trt_rtx.emit import emit

    return emit(TARGET, program, request, folder)


def _open(path: Path, signature: Signature, options: RtxOptions) -> Runner:
    from exporter.targets.trt_rtx.runner import RtxRunner

    return RtxRunner(path=path, signature=signature, options=options)


TARGET = Target(
    name=RTX.target,
    precisions=("fp32", "fp16", "bf16", "int8"),
    distributions=("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs"),
    extra=RTX.target,
    lint="trt-rtx",
    options=RtxOptions,
    # Not measured: no GPU has run it. As for TensorRT.
    forms={"cuda": Forms(mask="expanded", ranking="count")},
    device=lambda _: "cuda",
    check_available=_check_available,
    describe=_describe,
    emit=_emit,
    open=_open,
    prepared=Prepared(name=NOT_RUN, run_by="onnx"),
)
