"""Write a rewritten program as an engine of TensorRT for RTX, beside the ONNX that it is built from.

The engine is built on any machine. Where the GPU that is here can run it, it is the artifact, and parity is its own.
Elsewhere the artifact is its ONNX, verified by ONNX Runtime; the engine goes along unverified, until `validate` runs
where such a GPU is.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from exporter.rewrite import RewrittenProgram
from exporter.targets.onnx.save import save
from exporter.targets.target import Artifact, EmitRequest, Target
from exporter.targets.trt import device
from exporter.targets.trt.build import BuildRequest, build_plan
from exporter.targets.trt.files import onnx_sha256, write_atomically
from exporter.targets.trt.model import write_onnx
from exporter.targets.trt.probe import EngineProbe
from exporter.targets.trt_rtx.files import RtxIdentity, options_text, write_record
from exporter.targets.trt_rtx.gpus import built_for, configure, obstacle
from exporter.targets.trt_rtx.product import ENGINE, NOT_RUN, ONNX, RTX
from exporter.targets.trt_rtx.runner import RtxRunner


def emit(target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
    """Write `model_rtx.onnx`, and build `model_rtx.engine` from it.

    Args:
        target: the card.
        program: what to write.
        request: names, metadata and options.
        folder: to write into.

    Raises:
        UsageError: options that exclude each other or the batch; int8 without images.
        UnsupportedGraphError: the lint or the parser refuses the model.
        TargetUnavailableError: the library is missing, or builds no engine.
    """
    trt, options = RTX.load(), request.options
    options.check_batch(request.signature.batch)
    written = write_onnx(target, program, request, folder / ONNX)
    identity = build_engine(trt, request, folder)
    engine = Artifact(
        target=target.name,
        file=ENGINE,
        opset=written.opset,
        runner=RtxRunner(path=folder / ENGINE, signature=request.signature, options=options),
        probe=_probe(trt, written.whole, request) if program.merging_blocks else None,
        built_from=asdict(identity),
        details=written.details,
    )
    reason = obstacle(device.find_device(), options.hardware_compatibility)
    if not reason:
        return engine
    unverified = replace(engine, details={**written.details, "verified": False})
    note = f"{ENGINE} is built and not verified: {reason}; parity is that of {ONNX}"
    return replace(written.artifact(NOT_RUN, program, request), unverified=(unverified,), notes=(note,))


def build_engine(trt: Any, request: EmitRequest, folder: Path) -> RtxIdentity:
    """Build an engine from the ONNX in a folder, and note down beside it what it is.

    Raises:
        UnsupportedGraphError, TargetUnavailableError: as `build_plan` does.
    """
    options = request.options
    wanted = BuildRequest(
        inputs=tuple(spec.name for spec in request.signature.inputs),
        options=options,
        device=built_for(options.hardware_compatibility),
        cache=None,
        progress=request.progress,
        product=RTX,
        configure=configure,
    )
    built = build_plan(trt, folder / ONNX, wanted)
    write_atomically(folder / ENGINE, built.plan)
    identity = RtxIdentity(
        onnx_sha256=onnx_sha256(folder / ONNX),
        options=options_text(options),
        tensorrt_rtx=trt.__version__,
    )
    write_record(folder, identity, built.warnings)
    return identity


def _probe(trt: Any, model: Any, request: EmitRequest) -> EngineProbe:
    """The same engine with the matches as further outputs, built when it is asked for."""
    signature = request.signature.with_matches(len(model.graph.outputs) - len(request.signature.outputs))

    def build(folder: Path) -> RtxRunner:
        save(model, folder / ONNX)
        build_engine(trt, replace(request, progress=None), folder)
        return RtxRunner(path=folder / ENGINE, signature=signature, options=request.options)

    return EngineProbe(build=build)
