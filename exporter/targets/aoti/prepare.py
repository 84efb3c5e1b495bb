"""What another machine needs to compile and verify a package, where this one has no compiler or not the GPU.

In: a rewritten program. Out: `model_aoti_program.pt2`, the program itself, verified here in eager PyTorch before it
travels; and `build_aoti.py`, the module of that name beside this one with the recipe filled in, which needs PyTorch and
nothing of this package, but for programs with kernels of this package. The script compares with the bundle's sample,
under the tolerances in the bundle's `parity.json`.
"""

import hashlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from exporter.errors import InternalError
from exporter.machine import USED_BY_COMPILERS
from exporter.models.quiet import quiet
from exporter.rewrite import RewrittenProgram
from exporter.targets.aoti.compile import inductor_settings
from exporter.targets.aoti.emit import details
from exporter.targets.aoti.machine import AVX2
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.saved_program import PROGRAM, ProgramRunner, calls_kernels
from exporter.targets.build_script import write_script
from exporter.targets.results import (
    first_results,
    forget_where,
    probe_of,
    shipped_results,
    used_parameters,
)
from exporter.targets.target import Artifact, EmitRequest, Target

SCRIPT = "build_aoti.py"


def prepare(target: Target, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
    """Write the program and the script that compiles it.

    Args:
        target: the card; its `prepared` names the artifact.
        program: what to write, typed and in the forms of the options' device.
        request: names, metadata, and the target's options.
        folder: to write into.
    """
    if target.prepared is None:
        raise InternalError(f"{SCRIPT} is for a prepared target")
    options: AotiOptions = request.options
    kept = shipped_results(program, options.matches)

    def write(results: int, path: Path) -> None:
        save_program(used_parameters(first_results(program.exported, results)), path)

    write(kept, folder / PROGRAM)
    recipe = script_recipe(target.prepared.name, request, folder / PROGRAM)
    kernels = calls_kernels(folder / PROGRAM)
    needs = requirements(options, kernels=kernels)
    write_script(folder, Path(__file__).with_name(SCRIPT), recipe | {"kernels": kernels}, needs)
    runner = ProgramRunner(path=folder / PROGRAM, signature=request.signature)
    return Artifact(
        target=target.prepared.name,
        file=PROGRAM,
        runner=runner,
        probe=probe_of(runner, program, options.matches, write),
        details=details(program, options),
    )


def save_program(exported: ExportedProgram, path: Path) -> None:
    """Save a program, which loses the notes of its trace, without this machine's paths."""
    forget_where(exported)
    with quiet():
        torch.export.save(exported, path)


def script_recipe(name: str, request: EmitRequest, program: Path) -> dict[str, Any]:
    """The script's settings, as JSON values.

    Args:
        name: of the artifact.
        request: names, shapes, metadata and options.
        program: as it was saved.
    """
    options, batch = request.options, request.signature.batch
    return {
        "artifact": name,
        "program_sha256": hashlib.sha256(program.read_bytes()).hexdigest(),
        "samples": [f"sample-{name}.npz", "sample.npz"],
        "inputs": [spec.name for spec in request.signature.inputs],
        "outputs": request.signature.output_names,
        "batches": [1, sys.maxsize] if isinstance(batch, str) else [batch],
        "options": asdict(options),
        "settings": inductor_settings(options),
        "metadata": dict(request.metadata),
        "instructions": sorted(AVX2) if options.instructions == "avx2" else None,
        "instruction_names": USED_BY_COMPILERS.pattern,
    }


def requirements(options: AotiOptions, *, kernels: bool) -> list[str]:
    """What the script needs, as pip takes it; the program is read by the PyTorch that saved it."""
    headers = ["cuda-toolkit[cccl,crt]"] if options.device == "cuda" else []
    own = ["exporter[compiler]"] if kernels else []
    return [f"torch=={torch.__version__.split('+')[0]}", f"numpy=={np.__version__}", *headers, *own]
