"""What another machine needs to build and verify the engine, where TensorRT is not here.

In: a rewritten program. Out: `model_trt.onnx`, verified here by ONNX Runtime before it travels; TensorRT's lint of it;
and `build_trt.py`, the module of that name beside this one with the recipe filled in, which needs nothing of this
package. The script compares with the bundle's sample, under the tolerances in the bundle's `parity.json`.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.errors import InternalError, UsageError
from exporter.lint import lint
from exporter.rewrite import RewrittenProgram
from exporter.targets import build_script
from exporter.targets.build_script import dependencies
from exporter.targets.target import Artifact, EmitRequest, Target
from exporter.targets.trt.build import check_options
from exporter.targets.trt.device import Device
from exporter.targets.trt.files import ONNX, onnx_sha256, options_text
from exporter.targets.trt.model import write_onnx

SCRIPT = "build_trt.py"
LINT = "lint_trt.json"

_ANY_GPU = Device(name="the GPU there", capability=(sys.maxsize, 0))
"""The GPU is not known here; TensorRT refuses what it cannot do when it builds."""


def prepare(target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
    """Write the ONNX model, its lint, and the script that builds an engine from it.

    Args:
        target: the card; its `prepared` names the artifact.
        program: what to write.
        request: names, metadata, and the target's options.
        folder: to write into.

    Raises:
        UsageError: options that exclude each other or the batch; int8 without images.
        UnsupportedGraphError: TensorRT would refuse the model.
    """
    if target.prepared is None:
        raise InternalError(f"{SCRIPT} is for a prepared target")
    if (count := len(request.signature.inputs)) != 1:
        raise UsageError(
            f"prepare: {SCRIPT} builds engines with one input, got {count}; build on the machine itself"
        )
    name = target.prepared.name
    check_options(request.options, request.signature.batch, _ANY_GPU)
    written = write_onnx(target, program, request, folder / ONNX)
    found = lint(folder / ONNX, "trt", device="cuda").to_tree()
    (folder / LINT).write_text(f"{json.dumps(found, indent=2, sort_keys=True)}\n", encoding="utf-8")
    write_script(folder, script_recipe(name, request, folder / ONNX, written.attention))
    return written.artifact(name, program, request)


def script_recipe(name: str, request: EmitRequest, onnx: Path, attention: int) -> dict[str, Any]:
    """The script's settings, as JSON values.

    Args:
        name: of the artifact.
        request: names, shapes and options.
        onnx: the model.
        attention: how many attentions it has.
    """
    batch, options = request.signature.batch, request.options
    return {
        "artifact": name,
        "onnx_sha256": onnx_sha256(onnx),
        "samples": [f"sample-{name}.npz", "sample.npz"],
        "input": request.signature.inputs[0].name,
        "outputs": request.signature.output_names,
        "batches": list(options.profile or (batch,)),
        "attention": attention,
        "options": json.loads(options_text(options)),
    }


def write_script(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Write the script and the list of what it needs.

    Args:
        folder: to write into.
        recipe: of `script_recipe`.
    """
    template = Path(__file__).with_name(SCRIPT)
    needs = dependencies(template.read_text(encoding="utf-8"))
    build_script.write_script(folder, template, recipe, needs)
