"""Time contenders in turns in one process, on one stream; what the worker does with what `build` made."""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from exporter.benchmark.clock import Clock, open_clock
from exporter.benchmark.messages import WarmUp
from exporter.benchmark.worker import run_window, warm_up
from exporter.machine import cuda_facts

Device = Literal["cpu", "cuda"]
Call = Callable[[], object]

WARM_UP = WarmUp(window_calls=3, window_ms=60.0, tolerance=0.05, most_ms=2500.0)

LEAST_CALLS = 3
LATENCY_MS, MOST_LATENCY_CALLS = 25.0, 25
WINDOW_MS, MOST_WINDOW_CALLS = 60.0, 200


@dataclass(frozen=True, kw_only=True)
class Visit:
    """How long one round of one contender lasts; seconds are few, and rounds many."""

    latency_ms: float = LATENCY_MS
    window_ms: float = WINDOW_MS


def settle(call: Call, device: Device) -> dict[str, Any]:
    """Call until it is warm; the first latency, how many calls it took, and whether it settled."""
    clock = open_clock(device)
    first_ms, _ = clock(call)
    calls, settled = warm_up(lambda: clock(call)[0], WARM_UP)
    return {"first_ms": round(first_ms, 4), "warm_up_calls": calls, "settled": settled}


def run_round(
    calls: Mapping[str, Call], device: Device, seed: int, visit: Visit | None = None
) -> dict[str, dict[str, Any]]:
    """Visit every contender once, in an order of its own.

    Args:
        calls: by name; each enqueues one batch on the current stream.
        device: that they compute on.
        seed: of the order.
        visit: how long.

    Returns:
        By name `latency_ms`, `window_ms` and `window_calls`, as `results.Round` has them.
    """
    visit = visit or Visit()
    clock = open_clock(device)
    found = {}
    for name in random.Random(seed).sample(sorted(calls), len(calls)):
        found[name] = _visit(calls[name], clock, device, visit)
    return found


def clocks(device: Device) -> dict[str, Any]:
    """What the driver says of clocks and power now, right behind the work."""
    if device == "cpu":
        return {"name": "cpu"}
    try:
        return dict(cuda_facts())
    except Exception as error:  # NVML's own errors have no common type with PyTorch's
        return {"clocks_and_power": f"not readable: {type(error).__name__}"}


def _visit(call: Call, clock: Clock, device: Device, visit: Visit) -> dict[str, Any]:
    call()  # others have used the caches
    latency_ms = run_window(
        lambda: clock(call)[0],
        min_ms=visit.latency_ms,
        min_calls=LEAST_CALLS,
        max_calls=MOST_LATENCY_CALLS,
    )
    typical_ms = max(statistics.median(latency_ms), 1e-3)
    count = max(LEAST_CALLS, min(MOST_WINDOW_CALLS, math.ceil(visit.window_ms / typical_ms)))
    return {
        "latency_ms": [round(each, 5) for each in latency_ms],
        "window_ms": round(_window(call, count, device) / count, 6),
        "window_calls": count,
    }


def _window(call: Call, count: int, device: Device) -> float:
    """Milliseconds of calls one behind the other, the queue never empty for want of waiting."""
    if device == "cpu":
        started = time.perf_counter_ns()
        for _ in range(count):
            call()
        return (time.perf_counter_ns() - started) / 1e6

    def calls() -> None:
        for _ in range(count):
            call()

    milliseconds, _ = open_clock(device)(calls)
    return milliseconds
