"""Write a rewritten program as `model.onnx`.

Apart from `target`, which opens a model without any of the libraries that making one takes.
"""

import errno
import os
from pathlib import Path

import onnx
import onnx_ir as ir

from exporter.errors import InternalError
from exporter.rewrite import RewrittenProgram
from exporter.targets.onnx.build import build, without_matches
from exporter.targets.onnx.lowering import OPSET
from exporter.targets.onnx.probe import probe
from exporter.targets.onnx.runner import OnnxRunner
from exporter.targets.target import Artifact, EmitRequest

FILE = "model.onnx"

_EXTERNAL_ABOVE_BYTES = 2_000_000_000
"""protobuf ends at 2 GiB; larger models keep their weights in `model.onnx.data`."""


def emit(name: str, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
    """Write `model.onnx`; the probe is the same model with its matches as further outputs, in memory.

    Args:
        name: the target's.
        program: what to write.
        request: names and metadata.
        folder: to write into.
    """
    model = build(program.exported, request)
    prober = probe(model) if program.merging_blocks else None
    without_matches(model, request)
    _save(model, folder / FILE)
    _check(folder / FILE)
    runner = OnnxRunner(path=folder / FILE, input=request.input, outputs=request.outputs, spinning=False)
    return Artifact(target=name, file=FILE, opset=OPSET, runner=runner, probe=prober)


def _save(model: ir.Model, path: Path) -> None:
    weights = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value
    )
    apart = weights > _EXTERNAL_ABOVE_BYTES
    try:
        ir.save(model, path, external_data=f"{path.name}.data" if apart else None)
    except OSError as error:
        if error.errno is None:  # numpy forgets why a write stopped short: there was no room for the rest
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise InternalError(f"the ONNX checker refuses {path.name}: {error}") from error
