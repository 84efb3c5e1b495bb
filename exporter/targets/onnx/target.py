"""The ONNX target: standard operators of one opset, run by ONNX Runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.forms import Forms
from exporter.signature import Signature
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.runner import Runner
from exporter.targets.target import Artifact, EmitRequest, Target

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


def _check_available() -> None:
    """Always: its libraries are core dependencies; a provider is an option."""


def _check_options(options: OnnxOptions) -> None:
    if options.provider != "cpu":
        from exporter.targets.onnx.providers import check_provider

        check_provider(options)


def _describe() -> str:
    import onnxruntime

    providers = ", ".join(onnxruntime.get_available_providers())
    return f"ONNX Runtime {onnxruntime.__version__}: {providers}; bf16 on the CPU computes in fp32 and rounds"


def _emit(program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
    from exporter.targets.onnx.emit import emit

    return emit(TARGET, program, request, folder)


def _open(path: Path, signature: Signature, options: OnnxOptions) -> Runner:
    from exporter.targets.onnx.runner import OnnxRunner

    return OnnxRunner(path=path, signature=signature, options=options)


TARGET = Target(
    name="onnx",
    precisions=("fp32", "fp16", "bf16", "int8"),
    distributions=("onnxruntime",),
    lint="ort",
    options=OnnxOptions,
    # On a CPU, all forms of mask, selection and attention are within 2 % of each other; these are fewest operators.
    forms={"cpu": Forms(), "cuda": Forms()},
    device=lambda options: options.device,
    check_available=_check_available,
    check_options=_check_options,
    describe=_describe,
    emit=_emit,
    open=_open,
)
