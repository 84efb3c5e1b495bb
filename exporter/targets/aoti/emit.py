"""Write a rewritten program as `model_aoti.pt2`.

Apart from `target`, which opens a package without importing the compiler.
"""

from pathlib import Path

import torch

from exporter.errors import TargetUnavailableError
from exporter.forms import Precision
from exporter.rewrite import RewrittenProgram
from exporter.targets.aoti.compile import compile_package, compiler
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.package import read_metadata
from exporter.targets.aoti.runner import AotiRunner
from exporter.targets.results import probe_of, shipped_results
from exporter.targets.runner import Device
from exporter.targets.target import Artifact, EmitRequest, Target

FILE = "model_aoti.pt2"

FP8_CAPABILITY = (8, 9)
"""The first GPUs that multiply numbers in e4m3."""


def emit(target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
    """Compile `model_aoti.pt2`; the probe is the same code, or with `matches: dropped` a second package.

    Args:
        target: the card.
        program: what to compile, typed and lowered.
        request: names, metadata and options.
        folder: to write into.

    Raises:
        TargetUnavailableError: AOTInductor or the C++ compiler fails on this machine, or its GPU has no fp8.
    """
    options: AotiOptions = request.options
    _check_capability(request.precision, options.device)

    def write(results: int, path: Path) -> None:
        compile_package(program.exported, results, path, options, request.metadata)

    path = folder / FILE
    write(shipped_results(program, options.matches), path)
    runner = AotiRunner(
        path=path,
        signature=request.signature,
        device=options.device,
        cuda_graph=options.cuda_graph,
    )
    runner.load()
    return Artifact(
        target=target.name,
        file=FILE,
        runner=runner,
        probe=probe_of(runner, program, options.matches, write),
        built_from=_built_from(request, path),
        details=details(program, options),
    )


def details(program: RewrittenProgram, options: AotiOptions) -> dict[str, object]:
    """What the manifest says of a program: whether its matches are kept, and the scales of fp8."""
    matches = options.matches if program.merging_blocks else "none"
    return {"matches": matches} | ({"activation_scales": dict(program.scales)} if program.scales else {})


def _check_capability(precision: Precision, device: Device) -> None:
    """Refuse a GPU without products in fp8.

    Raises:
        TargetUnavailableError: its compute capability is below 8.9.
    """
    if precision != "fp8" or device != "cuda":
        return
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) < FP8_CAPABILITY:
        raise TargetUnavailableError(
            f"target aoti: fp8 needs a GPU of compute capability 8.9 (Ada, Hopper, Blackwell), got {major}.{minor}; "
            "use --precision fp16"
        )


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
