"""The ONNX model that an engine is built from, here (`emit`) or elsewhere (`prepare`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.rewrite import RewrittenProgram
from exporter.targets.linted import require_supported
from exporter.targets.onnx.build import build, without_matches
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.probe import probe
from exporter.targets.onnx.quantize import quantize
from exporter.targets.onnx.runner import OnnxRunner
from exporter.targets.onnx.save import check, save
from exporter.targets.target import Artifact, Details, EmitRequest, Target
from exporter.targets.trt.inspect import count_attention


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written, and what is known of it.

    Attributes:
        path: of the file.
        whole: the same model with its matches as further outputs.
        opset: of the default domain.
        attention: how many attentions it has.
        details: the lint's counts.
    """

    path: Path
    whole: Any
    opset: int
    attention: int
    details: Details

    def artifact(self, name: str, program: RewrittenProgram, request: EmitRequest) -> Artifact:
        """The model itself as an artifact, run by ONNX Runtime: what travels to a machine with the right GPU."""
        runner = OnnxRunner(
            path=self.path, signature=request.signature, options=OnnxOptions(), spinning=False
        )
        return Artifact(
            target=name,
            file=self.path.name,
            opset=self.opset,
            runner=runner,
            probe=probe(self.whole, OnnxOptions()) if program.merging_blocks else None,
            details=self.details,
        )


def write_onnx(target: Target, program: RewrittenProgram, request: EmitRequest, path: Path) -> Written:
    """Write the model to a file.

    Raises:
        UsageError: int8 without images.
        UnsupportedGraphError: TensorRT would refuse the model.
    """
    model = build(program.exported, request)
    if request.precision == "int8":
        model = quantize(model, request.calibration, path.parent, "int8")  # TensorRT has no zero points
    whole = model.clone()
    without_matches(model, request)
    save(model, path)
    check(path)
    return Written(
        path=path,
        whole=whole,
        opset=model.opset_imports[""],
        attention=count_attention([node.op_type for node in model.graph.all_nodes()]),
        details=require_supported(target, path, "cuda"),
    )
