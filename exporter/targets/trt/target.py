"""The TensorRT target: an engine built from ONNX by TensorRT's Python builder, for the GPU that is here."""

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.forms import Forms
from exporter.signature import Signature
from exporter.targets.runner import Runner
from exporter.targets.target import Artifact, EmitRequest, Prepared, Target
from exporter.targets.trt.options import TrtOptions

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


def _check_available() -> None:
    """TensorRT's package, in a supported version, and a GPU that torch can use."""
    from exporter.targets.trt import device, library

    library.tensorrt()
    device.current_device()


def _describe() -> str:
    from exporter.targets.trt import device, library

    version, here = library.tensorrt().__version__, device.current_device()
    return f"TensorRT {version}: {here.name}, compute capability {here.capability_text}"


def _emit(program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
    from exporter.targets.trt.emit import emit

    return emit(TARGET, program, request, folder)


def _prepare(program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
    from exporter.targets.trt.prepare import prepare

    return prepare(TARGET, program, request, folder)


def _open(path: Path, signature: Signature, options: TrtOptions) -> Runner:
    from exporter.targets.trt.runner import TrtRunner

    return TrtRunner(path=path, signature=signature, options=options)


TARGET = Target(
    name="trt",
    precisions=("fp32", "fp16", "bf16", "int8"),
    distributions=("tensorrt",),
    extra="trt",
    lint="trt",
    options=TrtOptions,
    # Not measured: no GPU has run it. The scale is on q and the mask is over queries and keys, as TensorRT's pages
    # ask of attention that is fused; no order among ties is promised there.
    forms={"cuda": Forms(mask="expanded", ranking="count")},
    device=lambda _: "cuda",
    check_available=_check_available,
    describe=_describe,
    emit=_emit,
    open=_open,
    prepared=Prepared(name="trt-onnx", run_by="onnx", emit=_prepare),
)
