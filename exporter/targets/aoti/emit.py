"""Write a rewritten program as `model_aoti.pt2`.

Apart from `target`, which opens a package without importing the compiler.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from exporter.errors import TargetUnavailableError, UsageError
from exporter.rewrite import RewrittenProgram
from exporter.targets.aoti.compile import compile_package, compiler
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.package import read_metadata
from exporter.targets.aoti.runner import AotiRunner
from exporter.targets.target import Artifact, EmitRequest, Target

FILE = "model_aoti.pt2"


def emit(target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
    """Compile `model_aoti.pt2`; the probe is the same code, or with `matches: dropped` a second package.

    Args:
        target: the card.
        program: what to compile, typed and lowered.
        request: names, metadata and options.
        folder: to write into.

    Raises:
        UsageError: an option that says nothing on the device asked for.
        TargetUnavailableError: no GPU where one is asked for; or AOTInductor or the C++ compiler fails on this machine.
    """
    options: AotiOptions = request.options
    if options.device == "cuda" and not torch.cuda.is_available():
        raise TargetUnavailableError(
            f"target aoti: aoti.device is cuda, and PyTorch {torch.__version__} sees no GPU here; "
            "use --engine-option aoti.device=cpu"
        )
    if options.device == "cuda" and options.instructions != "native":
        raise UsageError(f"aoti.instructions: expected native on a GPU, got {options.instructions}")
    matches = len(program.merging_blocks)
    shipped = program.outputs + (matches if options.matches == "kept" else 0)
    path = folder / FILE
    compile_package(program.exported, shipped, path, options, request.metadata)
    runner = AotiRunner(path=path, signature=request.signature, device=options.device)
    runner.load()
    prober = None
    if matches:
        same = shipped == program.outputs + matches
        prober = (
            replace(runner, signature=runner.signature.with_matches(matches))
            if same
            else _second(program, request, runner)
        )
    return Artifact(
        target=target.name,
        file=FILE,
        runner=runner,
        probe=prober,
        built_from=_built_from(request, path),
        details={"matches": options.matches if matches else "none"},
    )


def _second(program: RewrittenProgram, request: EmitRequest, runner: AotiRunner) -> AotiRunner:
    """A package with the matches, loaded and never shipped."""
    matches = len(program.merging_blocks)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / FILE
        compile_package(program.exported, program.outputs + matches, path, request.options, request.metadata)
        prober = replace(runner, path=path, signature=runner.signature.with_matches(matches), _engine=None)
        prober.load()
    return prober


def _built_from(request: EmitRequest, path: Path) -> dict[str, str]:
    """What identifies the code; its bytes differ from build to build."""
    options: AotiOptions = request.options
    found = read_metadata(path)
    built = {
        "torch": torch.__version__,
        "precision": request.precision,
        "device": options.device,
        "machine": f"{found['AOTI_PLATFORM']}/{found['AOTI_MACHINE']}",
        "compiler": compiler(),
    }
    if options.device == "cuda":
        return built | {
            "compute_capability": found["AOTI_COMPUTE_CAPABILITY"],
            "cuda": str(torch.version.cuda),
        }
    return built | {
        "vector_instructions": found["AOTI_CPU_ISA"],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": options.instructions,
    }
