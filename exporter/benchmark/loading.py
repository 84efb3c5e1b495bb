"""Bring a contender to life in this process: something to call without arguments that runs its input batch once.

Used by the worker. Each kind imports what it needs and nothing else: an engine's process never imports PyTorch,
whose threads and memory would be measured with it.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.arrays import ArrayForm, read_array
from exporter.benchmark.clock import Call, Device, graphed
from exporter.benchmark.contender import EngineFile
from exporter.benchmark.messages import Job
from exporter.errors import BundleError, InternalError, TargetUnavailableError, UsageError
from exporter.targets import Array, find_target, open_runner

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


PROFILED_CALLS = 20


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A contender that can run.

    Attributes:
        call: runs the input batch; returns when the outputs are there, or on CUDA when they are on their way.
        notes: what is not as asked for, each as `name: what`.
        profile: given a folder to work in, milliseconds of a call by block; None where the engine cannot tell.
    """

    call: Call
    notes: tuple[str, ...] = ()
    profile: Callable[[Path], Mapping[str, float]] | None = None


def read_images(job: Job) -> Array:
    """The input batch.

    Raises:
        UsageError: the file is no array, or of another batch size.
    """
    path, batch = job.images, job.contender.batch
    try:
        images = read_array(path, ArrayForm(dtype="numbers", shape=None), "write it with numpy.save")
    except BundleError as error:
        raise UsageError(f"expected an input batch: {error}") from None
    found = len(images) if images.ndim else 0
    if found != batch:
        raise UsageError(f"{path.name}: expected {batch} images for {job.contender.label}, got {found}")
    return images


def load_contender(job: Job, images: Array) -> Loaded:
    """Load a contender onto its device.

    Raises:
        TargetUnavailableError: the device is not here, or the engine cannot use it.
        ExportError: whatever loading the model or the engine raises.
    """
    if job.contender.engine is not None:
        return _load_engine(job, job.contender.engine, images)
    return _load_pytorch(job, images)


def arrays_of(outputs: object) -> list[Array]:
    """Every tensor or array that a call returned, as numpy arrays; reading them is what forces lazy work."""
    if isinstance(outputs, Mapping):
        return [array for each in outputs.values() for array in arrays_of(each)]
    if isinstance(outputs, list | tuple):
        return [array for each in outputs for array in arrays_of(each)]
    if isinstance(outputs, np.ndarray):
        return [outputs]
    to_numpy = getattr(outputs, "detach", None)
    if to_numpy is None:
        raise InternalError(f"a contender returned {type(outputs).__name__}: expected tensors or arrays")
    return [to_numpy().float().cpu().numpy()]


def _load_engine(job: Job, file: EngineFile, images: Array) -> Loaded:
    options = find_target(file.target).options(**{key: _held(value) for key, value in file.options.items()})
    runner: Any = open_runner(file.target, file.path, input=file.input, outputs=file.outputs, options=options)
    if job.device != getattr(runner, "device", "cpu"):
        raise TargetUnavailableError(
            f"target {file.target}: expected {job.device}, got a runner on the CPU; race it with device cpu"
        )
    notes = []
    if hasattr(runner, "threads"):
        runner.threads = job.threads
    else:
        notes.append(f"threads: the runner of target {file.target} chooses its own number of threads")
    if hasattr(runner, "load"):
        runner.load()
    else:
        notes.append(f"load-time: target {file.target} loads with the first inference; first_ms holds both")
    profile = getattr(runner, "profile_blocks", None) if job.device == "cpu" else None
    return Loaded(
        call=runner.on_device(images, job.contender.cuda_graph)
        if job.device == "cuda"
        else lambda: runner(images),
        notes=tuple(notes),
        profile=None if profile is None else lambda folder: profile(images, PROFILED_CALLS, folder),
    )


def _held(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _load_pytorch(job: Job, images: Array) -> Loaded:
    import torch

    if job.device == "cuda" and not torch.cuda.is_available():
        raise TargetUnavailableError("device cuda: expected a CUDA device that PyTorch can use, got none")
    torch.set_num_threads(job.threads)
    model = _module(job)
    given = torch.from_numpy(images).to(job.device)
    if job.contender.precision != "fp32":
        given = given.to(_dtype(job))
    call = _calling(model, given, torch.inference_mode)
    if not job.contender.cuda_graph:
        return Loaded(call=call)
    if job.device != "cuda":
        raise TargetUnavailableError(f"{job.contender.label}: CUDA graphs need device cuda, got {job.device}")
    return Loaded(call=graphed(call))


def _module(job: Job) -> "torch.nn.Module":
    import torch
    from torch.export import ExportedProgram

    from exporter.models import load
    from exporter.models.pt2.archive import read_program

    contender = job.contender
    if contender.program is not None:
        model = _placed(read_program(contender.program)[0], job.device)
    else:
        assert contender.model is not None
        loaded = load(contender.model).module
        if isinstance(loaded, ExportedProgram):
            model = _placed(loaded, job.device)
        else:
            model = loaded.to(job.device, _dtype(job))
    if contender.kind == "compiled":
        compiled: torch.nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
        return compiled
    return model


def _dtype(job: Job) -> "torch.dtype":
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[job.contender.precision]


def _placed(program: "ExportedProgram", device: Device) -> "torch.nn.Module":
    """A saved program on a device, what its graph itself creates included."""
    from torch.export.passes import move_to_device_pass

    placed = program if device == "cpu" else move_to_device_pass(program, device)
    module: torch.nn.Module = placed.module(check_guards=False)
    return module


def _calling(
    model: "torch.nn.Module", images: "torch.Tensor", mode: Callable[[], AbstractContextManager[Any]]
) -> Call:
    def call() -> object:
        with mode():
            return model(images)

    return call
