"""Write a rewritten program as `model.onnx`.

Apart from `target`, which opens a model without any of the libraries that making one takes.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from exporter.errors import UsageError
from exporter.rewrite import RewrittenProgram
from exporter.signature import Array, Signature
from exporter.targets.linted import require_supported
from exporter.targets.onnx.build import build, without_matches
from exporter.targets.onnx.opset import check_opset
from exporter.targets.onnx.probe import probe
from exporter.targets.onnx.providers import check_provider
from exporter.targets.onnx.quantize import calibration_inputs, quantize
from exporter.targets.onnx.runner import OnnxRunner
from exporter.targets.onnx.save import check, save
from exporter.targets.onnx.shared_weights import save_sharing
from exporter.targets.target import Artifact, EmitRequest, Target

__all__ = ["FILE", "check", "emit", "save"]

FILE = "model.onnx"


def emit(target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
    """Write `model.onnx`; the probe is the same model with its matches as further outputs, in memory.

    Args:
        target: the card.
        program: what to write.
        request: names, metadata, precision and options.
        folder: to write into.

    Raises:
        TargetUnavailableError: the provider that is to verify the model is not here.
        UsageError: int8 without calibration images, or in integers that the provider does not read; an opset that
            cannot say the program.
        UnsupportedGraphError: ONNX Runtime would refuse the model.
    """
    check_provider(request.options)
    asked = request.options.opset
    if asked is not None:
        check_opset(request, asked)
    if request.precision == "int8":
        _check_quantisation(request)
    model = build(program.exported, request, asked)
    if request.precision == "int8":
        version = model.ir_version
        model = quantize(model, request.calibration, folder, request.options.activations)
        model.ir_version = version if asked is not None else model.ir_version
    prober = probe(model, request.options) if program.merging_blocks else None
    without_matches(model, request)
    if request.shared_folder is None:
        save(model, folder / FILE)
    else:
        save_sharing(model, folder / FILE, folder / request.shared_folder)
    check(folder / FILE)
    on_cpu = (
        request.options.provider == "cpu" and request.precision != "bf16"
    )  # which the runner widens there
    details = require_supported(target, folder / FILE, "cpu" if on_cpu else "cuda")
    runner = OnnxRunner(
        path=folder / FILE,
        signature=request.signature,
        options=request.options,
        spinning=False,
    )
    if request.options.provider == "cuda":
        kernels = runner.attention_kernels(_zeros(request.signature))
        details = {**details, "attention": dict(Counter(kernels.values()))}
    return Artifact(
        target=target.name,
        file=FILE,
        opset=model.opset_imports[""],
        runner=runner,
        probe=prober,
        details=details,
    )


def _zeros(signature: Signature) -> dict[str, Array]:
    """One batch, of one row where its size is free."""
    return {
        spec.name: np.zeros([1 if isinstance(size, str) else size for size in spec.shape], spec.dtype)
        for spec in signature.inputs
    }


def _check_quantisation(request: EmitRequest) -> None:
    """Say what is missing before anything is built."""
    calibration_inputs(request.signature.inputs[0].name, request.calibration)
    if (request.options.provider, request.options.activations) == ("tensorrt", "uint8"):
        raise UsageError("onnx.activations: TensorRT quantises around zero: expected int8, got uint8")
