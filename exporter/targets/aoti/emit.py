"""Write a rewritten program as `model_aoti.pt2`.

Apart from `target`, which opens a package without importing the compiler.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from exporter.errors import UsageError
from exporter.rewrite import RewrittenProgram
from exporter.targets.aoti.compile import compile_package, compiler
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.package import read_metadata
from exporter.targets.aoti.runner import AotiRunner
from exporter.targets.target import Artifact, EmitRequest, TensorSpec

FILE = "model_aoti.pt2"


def emit(name: str, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
    """Compile `model_aoti.pt2`; the probe is the same code, or with `matches: dropped` a second package.

    Args:
        name: the target's.
        program: what to compile, typed and lowered.
        request: names, metadata and options.
        folder: to write into.

    Raises:
        UsageError: an option that says nothing on the device asked for.
        TargetUnavailableError: AOTInductor or the C++ compiler fails on this machine.
    """
    options: AotiOptions = request.options
    if options.device == "cuda" and options.instructions != "native":
        raise UsageError(f"aoti.instructions: expected native on a GPU, got {options.instructions}")
    matches = len(program.merging_blocks)
    shipped = program.outputs + (matches if options.matches == "kept" else 0)
    path = folder / FILE
    compile_package(program.exported, shipped, path, options, request.metadata)
    runner = AotiRunner(path=path, input=request.input, outputs=request.outputs, device=options.device)
    runner.load()
    prober = None
    if matches:
        same = shipped == program.outputs + matches
        prober = _with_matches(runner, matches) if same else _second(program, request, runner)
    return Artifact(
        target=name,
        file=FILE,
        runner=runner,
        probe=prober,
        built_from=_built_from(request, path),
        details={"matches": options.matches if matches else "none"},
    )


def _with_matches(runner: AotiRunner, matches: int) -> AotiRunner:
    """The same package, already loaded, read to its last result."""
    batch = runner.input.shape[0]
    further = (
        TensorSpec(name=f"match_{index}", dtype="int64", shape=(batch, "tokens")) for index in range(matches)
    )
    return replace(runner, outputs=(*runner.outputs, *further))


def _second(program: RewrittenProgram, request: EmitRequest, runner: AotiRunner) -> AotiRunner:
    """A package with the matches, loaded and never shipped."""
    matches = len(program.merging_blocks)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / FILE
        compile_package(program.exported, program.outputs + matches, path, request.options, request.metadata)
        prober = _with_matches(replace(runner, path=path, _package=None), matches)
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
