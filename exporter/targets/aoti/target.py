"""The AOTInductor target: a shared library compiled ahead of time by TorchInductor, run by PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import TargetUnavailableError
from exporter.forms import Forms
from exporter.signature import Signature
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.runner import Runner
from exporter.targets.target import Artifact, EmitRequest, Prepared, Target

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram

_ON_CUDA = Forms(merge="kernels", metric="columns", stem="product", normalization="narrow", product="scaled")
"""Chosen after a prototype with kernels like these was measured on one H200; these themselves never were."""


def _check_available() -> None:
    """A package is compiled C++ on every device.

    Raises:
        TargetUnavailableError: no C++ compiler runs here.
    """
    from exporter.targets.aoti.compile import compiler

    compiler()


def _check_options(options: AotiOptions) -> None:
    """A package for a GPU is compiled on one.

    Raises:
        TargetUnavailableError: no GPU where one is asked for, or no headers of CUDA's to compile for it.
    """
    import torch

    if options.device == "cpu":
        return
    if not torch.cuda.is_available():
        raise TargetUnavailableError(
            f"target aoti: aoti.device is cuda, and PyTorch {torch.__version__} sees no GPU here; "
            "use --engine-option aoti.device=cpu, or --prepare, which makes what a machine with one needs to compile it"
        )
    from exporter.targets.aoti.cuda_home import find_cuda_home

    find_cuda_home()


def _describe() -> str:
    import torch

    from exporter.targets.aoti.compile import compiler

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"PyTorch {torch.__version__}: CPU {capability}{gpu}; {compiler()}"


def _emit(program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
    from exporter.targets.aoti.emit import emit

    return emit(TARGET, program, request, folder)


def _prepare(program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
    from exporter.targets.aoti.prepare import prepare

    return prepare(TARGET, program, request, folder)


def _open(path: Path, signature: Signature, options: AotiOptions) -> Runner:
    """A runner over a package; or over the program that one is to be compiled from, which its name says."""
    from exporter.targets.aoti.saved_program import PROGRAM, ProgramRunner

    if path.name == PROGRAM:
        return ProgramRunner(path=path, signature=signature)
    from exporter.targets.aoti.runner import AotiRunner

    return AotiRunner(path=path, signature=signature, device=options.device, cuda_graph=options.cuda_graph)


TARGET = Target(
    name="aoti",
    precisions=("fp32", "fp16", "bf16", "fp8"),  # fp8 on a CPU by emulation
    options=AotiOptions,
    forms={"cpu": Forms(), "cuda": _ON_CUDA},  # the stable sort is PyTorch's own
    kernels=("cuda",),
    device=lambda options: options.device,
    check_available=_check_available,
    check_options=_check_options,
    describe=_describe,
    emit=_emit,
    open=_open,
    prepared=Prepared(name="aoti-program", run_by="aoti", emit=_prepare),
)
