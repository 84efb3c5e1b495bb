"""Call AOTInductor so that it leaves nothing but the package.

In: an `ExportedProgram` and options. Out: one file. The compiler's caches, sources and objects lie in a temporary
folder while it works, and the process's environment is what it was before.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config as inductor_config
from torch.export import ExportedProgram

from exporter.errors import TargetUnavailableError
from exporter.graph.move import move
from exporter.models.quiet import quiet
from exporter.targets.aoti.cuda_home import cuda_home
from exporter.targets.aoti.machine import demands
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.package import repack
from exporter.targets.results import first_results

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Where the compiler writes, by default, into folders that outlive the process."""


def compile_package(
    exported: ExportedProgram, results: int, path: Path, options: AotiOptions, metadata: Mapping[str, str]
) -> None:
    """Compile a program's first results into a package.

    Args:
        exported: on the CPU, whatever the options' device.
        results: how many of its results the package returns.
        path: of the package, a name in `.pt2`.
        options: how and for what to compile.
        metadata: further texts for the package to carry.

    Raises:
        TargetUnavailableError: AOTInductor or the C++ compiler fails on this machine.
    """
    program = first_results(exported, results)
    if options.device == "cuda":
        program = move(program, options.device)
    settings = inductor_settings(options) | {"aot_inductor.metadata": _texts(options, metadata)}
    with tempfile.TemporaryDirectory() as scratch, _caches_in(Path(scratch)):
        raw = Path(scratch) / path.name
        try:
            with quiet(), torch.no_grad(), cuda_home() if options.device == "cuda" else nullcontext():
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(raw), inductor_configs=settings
                )
        except Exception as error:  # the compiler's failures have no common type
            if isinstance(error, OSError) and error.errno is not None:
                raise  # no space, no permission: reported as such
            raise TargetUnavailableError(_complaint(error)) from error
        repack(raw, path, private=(scratch, *_installed()))


def compiler() -> str:
    """The C++ compiler that AOTInductor would call, and its version.

    Raises:
        TargetUnavailableError: there is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        name = get_cpp_compiler()
    except InvalidCxxCompiler as error:
        asked = os.environ.get("CXX", "g++")
        raise TargetUnavailableError(
            f"target aoti: needs a C++ compiler, and {asked} does not run here; install one (apt-get install g++), "
            "or name it in the environment variable CXX"
        ) from error
    said = subprocess.run([*name.split(), "--version"], capture_output=True, text=True, check=False).stdout
    return said.splitlines()[0] if said else name


def inductor_settings(options: AotiOptions) -> dict[str, Any]:
    """Inductor's settings for what the options ask for, as JSON values.

    Raises:
        TargetUnavailableError: this version of PyTorch does not have one of them.
    """
    settings: dict[str, Any] = {
        # Weights become constants, which oneDNN packs for this CPU: ViT-B's products take half the time. Not measured
        # on a GPU, where nothing is packed.
        "freezing": options.device == "cpu" and options.instructions == "native",
        "max_autotune": options.max_autotune,
        "cpp.dynamic_threads": True,  # else the threads of the compiling machine are written into the loops
    }
    if options.instructions == "avx2":
        settings |= {"cpp.simdlen": 256, "cpp.march": ""}
    known = known_settings()
    for name in settings:
        if name not in known:
            raise TargetUnavailableError(
                f"target aoti: PyTorch {torch.__version__} has no {name}; drop the option or upgrade PyTorch"
            )
    tidy = {"aot_inductor.enable_line_tables": False, "aot_inductor.precompile_headers": False}
    return settings | {name: value for name, value in tidy.items() if name in known}


def _texts(options: AotiOptions, metadata: Mapping[str, str]) -> dict[str, str]:
    return dict(metadata) | demands(options.instructions, torch.__version__)


def known_settings() -> frozenset[str]:
    """The names of Inductor's settings in this version of PyTorch."""
    return frozenset(inductor_config.get_config_copy())


@contextmanager
def _caches_in(folder: Path) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in CACHES}
    os.environ.update({name: str(folder / name.lower()) for name in CACHES})
    _forget_caches()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _forget_caches()


def _forget_caches() -> None:
    """Inductor remembers, per process, files that were in a cache folder."""
    from torch._inductor.utils import clear_caches

    clear_caches()


def _installed() -> tuple[str, ...]:
    """The folder that PyTorch is installed in: its headers name themselves in the code that is compiled from them."""
    return (str(Path(torch.__file__).parent),)


def _complaint(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if "error:" in line), lines[0] if lines else type(error).__name__)
    return f"target aoti: AOTInductor cannot compile this program here: {said[:300]}"
