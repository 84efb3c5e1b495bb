"""The Torch-TensorRT target: TensorRT engines inside of a saved PyTorch program."""

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.forms import Forms
from exporter.signature import Signature
from exporter.targets.runner import Runner
from exporter.targets.target import Artifact, EmitRequest, Target
from exporter.targets.torch_trt.options import TorchTrtOptions

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram


def _check_available() -> None:
    """The library, its TensorRT and a GPU are needed to build and to run."""
    from exporter.targets.torch_trt.library import load_library

    load_library()


def _describe() -> str:
    import torch

    from exporter.targets.torch_trt.library import load_library, versions

    found = versions(load_library())
    return (
        f"Torch-TensorRT {found['torch_tensorrt']}, TensorRT {found['tensorrt']}: "
        f"{torch.cuda.get_device_name()}, compute capability {found['compute_capability']}"
    )


def _emit(program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
    from exporter.targets.torch_trt.emit import emit

    return emit(TARGET, program, request, folder)


def _open(path: Path, signature: Signature, options: TorchTrtOptions) -> Runner:
    from exporter.targets.torch_trt.runner import TorchTrtRunner

    return TorchTrtRunner(path=path, signature=signature, cuda_graph=options.cuda_graph)


TARGET = Target(
    name="torch-trt",
    precisions=("fp32", "fp16", "bf16"),
    distributions=("torch-tensorrt",),
    extra="torch-trt",
    options=TorchTrtOptions,
    forms={"cuda": Forms()},  # not measured: it has not run on a GPU
    device=lambda _: "cuda",
    check_available=_check_available,
    describe=_describe,
    emit=_emit,
    open=_open,
)
