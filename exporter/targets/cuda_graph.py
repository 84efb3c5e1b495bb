"""Record a call on the GPU once, and replay the recording: one launch in place of one per kernel."""

from collections.abc import Callable

_WARM_UP_CALLS = 3


def recorded(call: Callable[[], object]) -> Callable[[], object]:
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
        kept = call()  # the graph writes into these tensors: they have to live as long as it does

    def replay() -> object:
        graph.replay()
        return kept

    return replay
