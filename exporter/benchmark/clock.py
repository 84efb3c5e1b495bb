"""How long one call takes: on the CPU by the wall clock, on CUDA by events on the stream that the call uses.

Used by the worker. A clock returns the call's outputs as well, so that they exist when the time is taken.
"""

import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

Device = Literal["cpu", "cuda"]
Call = Callable[[], object]


class Clock(Protocol):
    """Times one call: milliseconds, and what the call returned."""

    def __call__(self, call: Call) -> tuple[float, object]:
        """Run `call` once."""
        ...


def wall_clock(call: Call) -> tuple[float, object]:
    """Milliseconds of the monotonic clock around a call that returns when its outputs are there."""
    started = time.perf_counter_ns()
    outputs = call()
    return (time.perf_counter_ns() - started) / 1e6, outputs


class EventClock:
    """Milliseconds between two CUDA events around a call, on the current stream.

    The stream is empty when the first event is recorded, so the time holds the gaps in which the GPU waits for the
    CPU to launch: that is what a caller with one batch at a time sees, and what a CUDA graph removes.
    """

    def __init__(self) -> None:
        import torch

        self._torch: Any = torch
        self._start = torch.cuda.Event(enable_timing=True)
        self._stop = torch.cuda.Event(enable_timing=True)

    def __call__(self, call: Call) -> tuple[float, object]:
        """Run `call` once, alone on its stream, and wait for the device."""
        stream = self._torch.cuda.current_stream()
        stream.synchronize()
        self._start.record(stream)
        outputs = call()
        self._stop.record(stream)
        self._stop.synchronize()
        return float(self._start.elapsed_time(self._stop)), outputs


def open_clock(device: Device) -> Clock:
    """The clock of a device."""
    return EventClock() if device == "cuda" else wall_clock


def graphed(call: Call) -> Call:
    """The same work as one replay of a captured CUDA graph; inputs and outputs stay where they were captured.

    Args:
        call: launches on the current stream, with static shapes and no synchronisation.
    """
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # lazy initialisation must not be captured
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()

    def replay() -> object:
        graph.replay()
        return outputs

    return replay
