"""Write a rewritten program as a TensorRT engine, beside the ONNX that it is built from.

Apart from `target`, which opens an engine without any of the libraries that making one takes.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.rewrite import RewrittenProgram
from exporter.targets.onnx.save import save
from exporter.targets.target import Artifact, EmitRequest, Target
from exporter.targets.trt import device, timing_cache
from exporter.targets.trt.build import BuildRequest, check_options
from exporter.targets.trt.build_files import build_files
from exporter.targets.trt.files import ENGINE, ONNX
from exporter.targets.trt.library import tensorrt
from exporter.targets.trt.model import write_onnx
from exporter.targets.trt.options import TrtOptions
from exporter.targets.trt.probe import EngineProbe
from exporter.targets.trt.runner import TrtRunner


def emit(target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
    """Write `model_trt.onnx`, build `model.engine` from it, and look at what became of the graph.

    Args:
        target: the card.
        program: what to write.
        request: names, metadata and options.
        folder: to write into.

    Raises:
        UsageError: options that exclude each other, the batch or this GPU; a stale timing cache; int8 without images.
        UnsupportedGraphError: the lint or TensorRT's parser refuses the model.
        TargetUnavailableError: TensorRT or a GPU is missing, or no engine can be built.
    """
    trt, here, options = tensorrt(), device.current_device(), request.options
    check_options(options, request.signature.batch, here)
    cache = _cache_path(options)
    wanted = BuildRequest(
        inputs=tuple(spec.name for spec in request.signature.inputs),
        options=options,
        device=here,
        cache=timing_cache.read(cache) if cache else b"",
        cache_file=options.timing_cache,
        progress=request.progress,
    )
    written = write_onnx(target, program, request, folder / ONNX)
    files = build_files(trt, folder, wanted, written.attention)
    if cache:
        timing_cache.write(cache, files.built.cache)
    probing = replace(wanted, cache=files.built.cache)
    return Artifact(
        target=target.name,
        file=ENGINE,
        opset=written.opset,
        runner=TrtRunner(path=folder / ENGINE, signature=request.signature, options=options),
        probe=_probe(written.whole, request, probing) if program.merging_blocks else None,
        built_from=files.identity.entries(),
        details={**files.details, **written.details},
    )


def _cache_path(options: TrtOptions) -> Path | None:
    return None if options.timing_cache is None else Path(options.timing_cache)


def _probe(model: Any, request: EmitRequest, wanted: BuildRequest) -> EngineProbe:
    """The same engine with the matches as further outputs, whole, built when it is asked for."""
    options = replace(wanted.options, strip_plan=False, refit=False, cuda_graph=False)
    whole = replace(wanted, options=options, progress=None)
    signature = request.signature.with_matches(len(model.graph.outputs) - len(request.signature.outputs))

    def build(folder: Path) -> TrtRunner:
        save(model, folder / ONNX)
        build_files(tensorrt(), folder, whole, attention=0)
        return TrtRunner(path=folder / ENGINE, signature=signature, options=options)

    return EngineProbe(build=build)
