"""How long one call takes: on the CPU by the wall clock, on CUDA by events on the stream that the call uses.

Used by the worker. A clock returns the call's outputs as well, so that they exist when the time is taken.
"""

import time
from collections.abc import Callable
from typing import Any

from exporter.targets import Device as Device

Call = Callable[[], object]


Clock = Callable[[Call], tuple[float, object]]
"""Times one call: milliseconds, and what the call returned."""


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
