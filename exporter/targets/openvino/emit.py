"""Write a rewritten program as `openvino/model.xml` and `openvino/model.bin`.

In: a `RewrittenProgram`. The ONNX target translates it, and OpenVINO reads that. OpenVINO's own converter is not used:
it reports to its maker.
"""

import errno
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from exporter.rewrite import RewrittenProgram
from exporter.targets.linted import require_supported
from exporter.targets.onnx.build import build
from exporter.targets.onnx.quantize import quantize
from exporter.targets.onnx.save import save
from exporter.targets.openvino.attention_kernels import attention_kernels
from exporter.targets.openvino.device import require_device
from exporter.targets.openvino.engine import check_options
from exporter.targets.openvino.library import load_library, shared_core
from exporter.targets.openvino.naming import name_by_place
from exporter.targets.openvino.options import OpenVinoOptions
from exporter.targets.openvino.probe import OpenVinoProbe
from exporter.targets.openvino.runner import OpenVinoRunner
from exporter.targets.target import Artifact, Details, EmitRequest, Target

FOLDER = "openvino"
FILE = f"{FOLDER}/model.xml"

_ACTIVATIONS: Literal["uint8", "int8"] = "uint8"
"""x86 multiplies bytes without a sign by bytes with one."""


def emit(target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
    """Write the two files; the probe is the same model with its matches as further outputs, in memory.

    Args:
        target: the card.
        program: what to write.
        request: names, metadata, precision and options.
        folder: to write into; the files get a folder of their own in it.

    Raises:
        TargetUnavailableError: the device is not here, or does not compute in this precision.
        UsageError: options without sense, or int8 without calibration images.
        UnsupportedGraphError: OpenVINO would refuse the model.
    """
    options: OpenVinoOptions = request.options
    check_options(options)
    require_device(shared_core(), options.device, [request.precision])
    model, linted = _translate(target, program, request, folder)
    shipped = _without_matches(model, request)
    path = folder / FILE
    path.parent.mkdir()
    _save(shipped, path)
    runner = OpenVinoRunner(path=path, signature=request.signature, options=options, threads=options.threads)
    fused, attentions = attention_kernels(shipped, runner.runtime_model())
    return Artifact(
        target=target.name,
        file=FILE,
        runner=runner,
        probe=OpenVinoProbe(model=model, options=options) if program.merging_blocks else None,
        details={"attention_fused": fused, "attentions": attentions, **linted},
    )


def _translate(
    target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path
) -> tuple[Any, Details]:
    """The program as OpenVINO's model, by way of files that do not stay, and the lint's counts.

    Its weights are as they will be stored.
    """
    core = shared_core()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "model.onnx"
        translated = build(program.exported, request)
        if request.precision == "int8":
            translated = quantize(translated, request.calibration, folder, _ACTIVATIONS)
        save(translated, path)
        linted = require_supported(target, path)
        model = core.read_model(path)
        if request.options.compress_weights:
            _save(model, path.with_name("compressed.xml"), compress=True)
            model = core.read_model(path.with_name("compressed.xml"))
    name_by_place(model)
    return model, linted


def _without_matches(model: Any, request: EmitRequest) -> Any:
    shipped = model.clone()
    for match in shipped.get_results()[len(request.signature.outputs) :]:
        shipped.remove_result(match)
    return shipped


def _save(model: Any, path: Path, *, compress: bool = False) -> None:
    try:
        load_library().save_model(model, path, compress_to_fp16=compress)
    except RuntimeError as error:  # of a stream that could not be written to the end; it does not say why
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
