"""The ONNX model that an engine is built from, here (`emit`) or elsewhere (`prepare`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.rewrite import RewrittenProgram
from exporter.targets.linted import require_supported
from exporter.targets.onnx.build import build, without_matches
from exporter.targets.onnx.quantize import quantize
from exporter.targets.onnx.save import check, save
from exporter.targets.target import Details, EmitRequest, Target
from exporter.targets.trt.files import ONNX
from exporter.targets.trt.inspect import count_attention


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written, and what is known of it.

    Attributes:
        whole: the same model with its matches as further outputs.
        opset: of the default domain.
        attention: how many attentions it has.
        details: the lint's counts.
    """

    whole: Any
    opset: int
    attention: int
    details: Details


def write_onnx(target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Written:
    """Write `model_trt.onnx`.

    Raises:
        UsageError: int8 without images.
        UnsupportedGraphError: TensorRT would refuse the model.
    """
    model = build(program.exported, request)
    if request.precision == "int8":
        model = quantize(model, request.calibration, folder, "int8")  # TensorRT has no zero points
    whole = model.clone()
    without_matches(model, request)
    save(model, folder / ONNX)
    check(folder / ONNX)
    return Written(
        whole=whole,
        opset=model.opset_imports[""],
        attention=count_attention([node.op_type for node in model.graph.all_nodes()]),
        details=require_supported(target, folder / ONNX, "cuda"),
    )
