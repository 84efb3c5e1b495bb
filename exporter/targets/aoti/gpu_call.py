"""Call a package on the GPU with arrays that lie in the CPU's memory, one batch of a fixed size after the other.

The copies go through pinned memory, which the GPU reads and writes by itself; copies and kernels stand in a stream of
their own, and the host waits once, at the end.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from exporter.signature import Array
from exporter.targets.cuda_graph import recorded


@dataclass(frozen=True, kw_only=True)
class GpuCall:
    """A call whose memory is allocated: calls overwrite one another's, and return arrays of their own.

    Attributes:
        stream: that everything is enqueued on.
        arriving: pinned memory for the inputs.
        given: the inputs on the GPU.
        launch: enqueues the package's kernels; returns all of its results, on the GPU.
        leaving: pinned memory for the first results.
    """

    stream: torch.cuda.Stream
    arriving: list[Tensor]
    given: list[Tensor]
    launch: Callable[[], Any]
    leaving: list[Tensor]

    def __call__(self, batch: Iterable[Array]) -> list[Array]:
        """The results for a batch, input by input in the package's order."""
        for pinned, array in zip(self.arriving, batch, strict=True):
            pinned.copy_(torch.from_numpy(array))
        with torch.cuda.stream(self.stream):
            for tensor, pinned in zip(self.given, self.arriving, strict=True):
                tensor.copy_(pinned, non_blocking=True)
            for pinned, result in zip(
                self.leaving, self.launch(), strict=False
            ):  # matches stay where they are
                pinned.copy_(result, non_blocking=True)
        self.stream.synchronize()
        return [pinned.numpy().copy() for pinned in self.leaving]


def prepare_call(package: Any, batch: Iterable[Array], results: int, *, cuda_graph: bool) -> GpuCall:
    """Allocate what a call needs, and record it.

    Args:
        package: PyTorch's loader, of a package for the GPU.
        batch: one batch, for shapes and dtypes.
        results: how many of the package's results are wanted.
        cuda_graph: record the package's kernels as one CUDA graph.
    """
    stream = torch.cuda.Stream()
    arriving = [torch.from_numpy(array).pin_memory() for array in batch]
    with torch.cuda.stream(stream):
        given = [pinned.cuda() for pinned in arriving]

        def launch() -> Any:
            return package.boxed_run(list(given))

        enqueue: Callable[[], Any] = recorded(launch) if cuda_graph else launch
        leaving = [torch.empty_like(result, device="cpu").pin_memory() for result in enqueue()[:results]]
    return GpuCall(stream=stream, arriving=arriving, given=given, launch=enqueue, leaving=leaving)
