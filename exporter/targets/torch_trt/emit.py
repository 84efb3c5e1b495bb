"""Write a rewritten program as `model_trt.pt2`.

Apart from `target` and `runner`, which open one without importing the compiler.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import ExportedProgram

from exporter.capture import export_graph
from exporter.errors import UsageError
from exporter.models.quiet import quiet
from exporter.rewrite import RewrittenProgram
from exporter.targets.results import forget_where, probe_of, shipped_results
from exporter.targets.target import Artifact, EmitRequest, Target
from exporter.targets.torch_trt.archive import ABOUT
from exporter.targets.torch_trt.build import build
from exporter.targets.torch_trt.coverage import Coverage, read_coverage, require
from exporter.targets.torch_trt.library import load_library, versions
from exporter.targets.torch_trt.options import TorchTrtOptions
from exporter.targets.torch_trt.prepare import prepare
from exporter.targets.torch_trt.runner import TorchTrtRunner

FILE = "model_trt.pt2"

Device = Literal["cpu", "cuda"]


def emit(
    target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path, device: Device = "cuda"
) -> Artifact:
    """Build the engines and write `model_trt.pt2`; the probe is the same file, or with `matches: dropped` another.

    Args:
        target: the card.
        program: what to build, typed and lowered.
        request: names, metadata and options.
        folder: to write into.
        device: where to build.

    Raises:
        UsageError: a free batch axis.
        TargetUnavailableError: no Torch-TensorRT, TensorRT or GPU here, or it cannot build.
        GateError: more operators stay in PyTorch than the options allow.
    """
    options: TorchTrtOptions = request.options
    if isinstance(request.signature.batch, str):
        raise UsageError("target torch-trt: expected a static batch, got a dynamic one; use --batch N")
    library = load_library()
    about = versions(library) | {"hardware_compatible": str(options.hardware_compatible)}

    def write(results: int, path: Path) -> Coverage:
        return _write(library, prepare(program.exported, results, device), request, path, about, device)

    coverage = write(shipped_results(program, options.matches), folder / FILE)
    runner = TorchTrtRunner(
        path=folder / FILE,
        signature=request.signature,
        cuda_graph=options.cuda_graph,
        device=device,
    )
    runner.load()
    prober = probe_of(runner, program, options.matches, write)
    details: dict[str, Any] = {
        "engines": coverage.engines,
        "fallback": dict(coverage.fallback),
        "matches": options.matches if program.merging_blocks else "none",
    }
    built_from = about | {"precision": request.precision}
    return Artifact(
        target=target.name, file=FILE, runner=runner, probe=prober, built_from=built_from, details=details
    )


def _write(
    library: Any,
    prepared: ExportedProgram,
    request: EmitRequest,
    path: Path,
    about: dict[str, str],
    device: Device,
) -> Coverage:
    examples = [
        torch.zeros([int(size) for size in spec.shape], dtype=getattr(torch, spec.dtype), device=device)
        for spec in request.signature.inputs
    ]
    compiled = build(library, prepared, examples, request.precision, request.options)
    coverage = read_coverage(compiled)
    require(coverage, request.options.max_fallback)
    with quiet():
        saved = export_graph(compiled, *examples, dynamic_batch=False)
        forget_where(saved)
        library.save(
            saved,
            str(path),
            output_format="exported_program",
            extra_files={ABOUT: json.dumps(about | dict(request.metadata), sort_keys=True)},
        )
    return coverage
