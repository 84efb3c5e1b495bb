"""Load a contender; return a callable that runs its batch once.

Used by the worker. Each kind imports what it needs and nothing else: an engine's process never imports PyTorch,
whose threads and memory would be measured with it.
"""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.arrays import ArrayForm, read_archive, read_array
from exporter.benchmark.clock import Call
from exporter.benchmark.contender import EngineFile
from exporter.benchmark.messages import Job
from exporter.errors import BundleError, InternalError, TargetUnavailableError, UsageError
from exporter.ladder import Cascade
from exporter.targets import Array, Device, Inputs, Runner, open_runner, options_from
from exporter.targets.cuda_graph import recorded

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
        profile: given a folder to work in, milliseconds of a call by block, or None; only of engines on a CPU.
    """

    call: Call
    notes: tuple[str, ...] = ()
    profile: Callable[[Path], Mapping[str, float] | None] | None = None


def write_inputs(path: Path, inputs: Mapping[str, Array]) -> Path:
    """Write a batch for workers to read: a `.npy` file, or an `.npz` file where there are several inputs."""
    if len(inputs) == 1:
        (array,) = inputs.values()
        np.save(path, array)
        return path
    archive = path.with_suffix(".npz")
    np.savez(archive, **inputs)  # type: ignore[arg-type]
    return archive


def read_inputs(job: Job) -> Inputs:
    """The input batch.

    Raises:
        UsageError: the file holds no array, or another batch size.
    """
    path, batch = job.images, job.contender.batch
    try:
        inputs = _read_inputs(path)
    except BundleError as error:
        raise UsageError(f"expected an input batch: {error}") from None
    for array in arrays_of(inputs):
        found = len(array) if array.ndim else 0
        if found != batch:
            raise UsageError(f"{path.name}: expected {batch} images for {job.contender.label}, got {found}")
    return inputs


def _read_inputs(path: Path) -> Inputs:
    form, remedy = ArrayForm(dtype="numbers", shape=None), "write it with numpy.save"
    if path.suffix != ".npz":
        return read_array(path, form, remedy)
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    return read_archive(path, dict.fromkeys(names, form), remedy)


def load_contender(job: Job, inputs: Inputs) -> Loaded:
    """Load a contender onto its device.

    Raises:
        TargetUnavailableError: the device is not here, or the engine cannot use it.
        ExportError: whatever loading the model or the engine raises.
    """
    if job.contender.engine is not None:
        return _load_engine(job, job.contender.engine, inputs)
    return _load_pytorch(job, inputs)


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


def _load_engine(job: Job, file: EngineFile, inputs: Inputs) -> Loaded:
    runner = _open(job, file)
    notes: tuple[str, ...] = ()
    if runner.threads is None:
        notes = (f"threads: the runner of target {file.target} chooses its own number of threads",)
    if job.device == "cuda":
        return Loaded(call=runner.enqueue(inputs, cuda_graph=job.contender.cuda_graph), notes=notes)
    if job.contender.threshold is not None:
        cheaper = [_open(job, each) for each in job.contender.cheaper]
        cascade = Cascade(
            runners=(*cheaper, runner), threshold=job.contender.threshold, router=job.contender.router
        )
        return Loaded(call=lambda: cascade(inputs), notes=notes)
    if file.signature.batch not in (job.contender.batch, "batch"):  # a call is over several of its batches
        return Loaded(call=lambda: runner(inputs), notes=notes)
    return Loaded(
        call=lambda: runner(inputs),
        notes=notes,
        profile=lambda folder: runner.profile(inputs, calls=PROFILED_CALLS, folder=folder),
    )


def _open(job: Job, file: EngineFile) -> Runner:
    options = options_from(file.target, file.options)
    runner = open_runner(file.target, file.path, signature=file.signature, options=options)
    if job.device != runner.device:
        raise TargetUnavailableError(
            f"target {file.target}: expected {job.device}, got a runner on {runner.device}; race it with device "
            f"{runner.device}"
        )
    if runner.threads is not None:
        runner.threads = job.threads
    runner.load()
    return runner


def _load_pytorch(job: Job, inputs: Inputs) -> Loaded:
    import torch

    if job.device == "cuda" and not torch.cuda.is_available():
        raise TargetUnavailableError("device cuda: expected a CUDA device that PyTorch can use, got none")
    torch.set_num_threads(job.threads)
    model = _module(job)
    given = [torch.from_numpy(array).to(job.device) for array in arrays_of(inputs)]
    if job.contender.precision != "fp32":
        given = [tensor.to(_dtype(job)) for tensor in given]

    def call() -> object:
        with torch.inference_mode():
            return model(*given)

    if not job.contender.cuda_graph:
        return Loaded(call=call)
    if job.device != "cuda":
        raise TargetUnavailableError(f"{job.contender.label}: CUDA graphs need device cuda, got {job.device}")
    return Loaded(call=recorded(call))


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
    from exporter.graph.move import move

    module: torch.nn.Module = move(program, device).module(check_guards=False)
    return module
