"""The process that touches the GPU: `python -m tools.gpu.worker DEVICE`, told what to do over stdin.

Requests are `machine`, `open` (a job), `build` (one of its contenders), `round` and `kernels`. One process serves many
jobs, since starting it takes longer than most measurements; `drive` starts a new one where a contender ruins it.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

import torch

from exporter.errors import ExportError, InternalError
from exporter.processes.serving import serve
from exporter.targets import Array
from tools.gpu.build import build, forget_device_memory, reason
from tools.gpu.forms import MadeForms
from tools.gpu.jobs import LISTS, Job
from tools.gpu.kernels import list_kernels
from tools.gpu.machine import torch_facts
from tools.gpu.timing import Call, Device, clocks, run_round


class Worker:
    """What a process knows: programs of all jobs, and the contenders of one."""

    def __init__(self, device: Device, forms: MadeForms | None = None) -> None:
        self._device = device
        self._forms = forms or MadeForms(device=device)
        self._calls: dict[str, Call] = {}
        self._job: Job | None = None
        self._images: Array | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is asked.

        Raises:
            InternalError: the request is unknown.
        """
        match request["ask"]:
            case "machine":
                return torch_facts(self._device)
            case "open":
                return self._open(LISTS[request["list"]][request["job"]])
            case "build":
                return self._build(request["contender"])
            case "round":
                rounds = run_round(self._calls, self._device, request["seed"])
                return {"rounds": rounds, "clocks": clocks(self._device)}
            case "kernels":
                return {"kernels": {name: self._kernels(call) for name, call in self._calls.items()}}
            case other:
                raise InternalError(f"a worker was asked to {other}")

    def _open(self, job: Job) -> dict[str, Any]:
        self._calls.clear()
        self._forms.keep_only(job.model)
        forget_device_memory()
        self._job, self._images = job, self._forms.images(job.model, job.batch)
        return {}

    def _build(self, place: int) -> dict[str, Any]:
        """One contender; what it fails with is an answer, and so is whether the process is still good for others."""
        if self._job is None or self._images is None:
            raise InternalError("a worker was asked to build before it was given a job")
        contender = self._job.contenders[place]
        try:
            built = build(
                contender,
                self._job.model,
                self._images,
                self._forms,
                self._device,
                replay=self._job.purpose == "time",
            )
        except Exception as error:  # the engines', the compilers' and CUDA's have no common type
            why = _why(error)
            return {
                "failed": {contender.name: why},
                "facts": {},
                "executed_macs": 0,
                "ruined": self._ruined(),
            }
        self._calls |= built.calls
        return {
            "failed": built.failed,
            "facts": built.facts,
            "executed_macs": built.executed_macs,
            "ruined": self._ruined(),
        }

    def _kernels(self, call: Call) -> list[dict[str, Any]]:
        return list_kernels(call, self._device)

    def _ruined(self) -> bool:
        """Whether the device answers with errors from now on, as it does after an illegal access."""
        if self._device == "cpu":
            return False
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return True
        return False


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, ExportError) else reason(error)


def started(device: Device) -> Worker:
    """A worker on its device."""
    if device == "cuda" and torch.cuda.is_available():  # where it is not, the first answer says so
        torch.backends.cuda.matmul.allow_tf32 = False  # fp32 is what it says, here and in the reference
        torch.backends.cudnn.allow_tf32 = False
        torch.cuda.set_stream(torch.cuda.Stream())  # engines synchronise around the default one
    torch.set_num_threads(len(os.sched_getaffinity(0)) if device == "cuda" else 1)
    return Worker(device)


def main() -> None:
    """The process."""
    device: Device = "cpu" if sys.argv[1:] == ["cpu"] else "cuda"
    serve(started(device).answer)


if __name__ == "__main__":
    main()
