"""The GPU that an engine is built on and run on, as torch sees it.

torch is what allocates here: engines read and write the memory of its tensors, on its current stream.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch

from exporter.errors import TargetUnavailableError

DEFAULT_STREAM = 0


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU.

    Attributes:
        name: its model.
        capability: compute capability, major and minor.
        place: where torch puts tensors for it.
    """

    name: str
    capability: tuple[int, int]
    place: str = "cuda"

    @property
    def capability_text(self) -> str:
        """As NVIDIA writes it: `9.0`."""
        return ".".join(map(str, self.capability))


def current_device() -> Device:
    """The GPU that torch uses now.

    Raises:
        TargetUnavailableError: there is none.
    """
    here = find_device()
    if here is None:
        raise TargetUnavailableError(
            "target trt: no GPU that torch can use; TensorRT builds and runs engines on NVIDIA GPUs only "
            "(`--prepare` makes what another machine needs to build one)"
        )
    return here


def find_device() -> Device | None:
    """The GPU that torch uses now, if there is one."""
    if not torch.cuda.is_available():
        return None
    index = torch.cuda.current_device()
    return Device(name=torch.cuda.get_device_name(index), capability=torch.cuda.get_device_capability(index))


@contextmanager
def launching() -> Iterator[int]:
    """Handle of the CUDA stream to enqueue on: torch's current one.

    TensorRT synchronises the whole device around a call on the default stream. Where that is the current one, a
    stream beside it is used, after what is in the default stream and before what comes.
    """
    current = torch.cuda.current_stream()
    if current.cuda_stream != DEFAULT_STREAM:
        yield int(current.cuda_stream)
        return
    beside = _stream_beside(torch.cuda.current_device())
    beside.wait_stream(current)
    yield int(beside.cuda_stream)
    current.wait_stream(beside)


@cache
def _stream_beside(index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(index)
