"""Record a call on the GPU once, and replay the recording: one launch in place of one per kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_WARM_UP_CALLS = 3


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A call that was recorded: calling it enqueues the same work, and returns the same tensors, on PyTorch's stream.

    A recording knows addresses and keeps nothing alive. What lies at these addresses lives as long as this object:
    inputs and parameters, which the recorded call holds, and results.

    Attributes:
        graph: a captured `torch.cuda.CUDAGraph`.
        call: that was captured.
        results: that the graph writes into.
    """

    graph: Any
    call: Callable[[], object]
    results: object

    def __call__(self) -> object:
        """The results, which the next call overwrites."""
        self.graph.replay()
        return self.results


def recorded(call: Callable[[], object]) -> Recording:
    """The same work as one replay of a captured CUDA graph; inputs and outputs stay where they were captured.

    Args:
        call: launches on PyTorch's current stream, with static shapes and no synchronisation.
    """
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # lazy initialisation must not be captured
        for _ in range(_WARM_UP_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    return Recording(graph=graph, call=call, results=results)
