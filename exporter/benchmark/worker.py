"""One contender in a process of its own: `python -m exporter.benchmark.worker`, asked over stdin.

Two thread pools in one process slow each other down several times over, and their memory cannot be told apart; hence
the process. Requests are `prepare`, `round`, `finish` and `profile`, in that order; see `messages`.
"""

import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporter.benchmark.clock import Clock, open_clock
from exporter.benchmark.loading import Loaded, arrays_of, load_contender, read_inputs
from exporter.benchmark.memory import Peak, forget_peak, peak_resident
from exporter.benchmark.messages import Job, WarmUp
from exporter.errors import InternalError, UsageError
from exporter.machine import cuda_facts
from exporter.processes.serving import serve
from exporter.records import message_from


class Worker:
    """Loads one contender, warms it up and times it round by round."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._loaded: Loaded | None = None
        self._clock: Clock | None = None
        self._forgot = False

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is asked.

        Raises:
            InternalError: the request is unknown.
        """
        match request["ask"]:
            case "prepare":
                return self._prepare(message_from(Job, request["job"]))
            case "round":
                return self._round(request)
            case "finish":
                return self._finish()
            case "profile":
                return self._profile(Path(request["folder"]))
            case other:
                raise InternalError(f"a benchmark worker was asked to {other}")

    def _prepare(self, job: Job) -> dict[str, Any]:
        os.sched_setaffinity(0, job.cores)
        started = time.perf_counter_ns()
        self._job, self._loaded = job, load_contender(job, read_inputs(job))
        load_ms = (time.perf_counter_ns() - started) / 1e6
        self._clock = open_clock(job.device)
        self._forget_peak()
        first_ms, outputs = self._clock(self._loaded.call)
        _check_finite(outputs)
        warm_up_calls, settled = warm_up(self._timed, job.warm_up)
        return {
            "load_ms": load_ms,
            "first_ms": first_ms,
            "warm_up_calls": warm_up_calls,
            "settled": settled,
            "notes": [*self._loaded.notes, *_compiler_notes()],
        }

    def _round(self, request: Mapping[str, Any]) -> dict[str, Any]:
        gc.collect()
        gc.disable()
        started = time.process_time_ns()
        try:
            samples_ms = run_round(
                self._timed,
                min_ms=request["min_ms"],
                min_calls=request["min_calls"],
                max_calls=request["max_calls"],
            )
        finally:
            gc.enable()
        cpu_ms = (time.process_time_ns() - started) / 1e6
        return {"samples_ms": [round(each, 5) for each in samples_ms], "cpu_ms": cpu_ms}

    def _finish(self) -> dict[str, Any]:
        peak = self._peak()
        return {
            "peak_memory_bytes": peak.bytes,
            "peak_since": peak.since,
            "device": cuda_facts() if self._on_cuda else {},
        }

    def _profile(self, folder: Path) -> dict[str, Any]:
        profile = self._loaded.profile if self._loaded is not None else None
        found = profile(folder) if profile is not None else None
        return {"block_ms": dict(found or {})}

    def _timed(self) -> float:
        if self._loaded is None or self._clock is None:
            raise InternalError("a benchmark worker was asked to run before it was prepared")
        milliseconds, _ = self._clock(self._loaded.call)
        return milliseconds

    @property
    def _on_cuda(self) -> bool:
        """Whether PyTorch's allocator on CUDA knows the memory; engines have their own."""
        return self._job is not None and self._job.device == "cuda" and "torch" in sys.modules

    def _forget_peak(self) -> None:
        if self._on_cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            self._forgot = forget_peak()

    def _peak(self) -> Peak:
        if self._on_cuda:
            import torch

            return Peak(bytes=torch.cuda.max_memory_allocated(), since="load")
        return peak_resident(forgot=self._forgot)


def warm_up(timed: Callable[[], float], until: WarmUp) -> tuple[int, bool]:
    """Call until two windows agree.

    Args:
        timed: runs once; milliseconds.
        until: what agreement is, and when to give up.

    Returns:
        How many calls it took, and whether the windows agreed.
    """
    calls, spent_ms = 0, 0.0
    previous = float("inf")
    while spent_ms < until.most_ms:
        window = run_window(timed, min_ms=until.window_ms, min_calls=until.window_calls)
        calls, spent_ms = calls + len(window), spent_ms + sum(window)
        median = statistics.median(window)
        if abs(median - previous) <= until.tolerance * min(median, previous):
            return calls, True
        previous = median
    return calls, False


def run_round(timed: Callable[[], float], *, min_ms: float, min_calls: int, max_calls: int) -> list[float]:
    """One untimed call, since other processes have used the caches, then a window of timed calls."""
    timed()
    return run_window(timed, min_ms=min_ms, min_calls=min_calls, max_calls=max_calls)


def run_window(
    timed: Callable[[], float], *, min_ms: float, min_calls: int, max_calls: int = sys.maxsize
) -> list[float]:
    """Milliseconds of call after call: at least `min_calls` and `min_ms` in all, but never more than `max_calls`."""
    samples_ms: list[float] = []
    spent_ms = 0.0
    while len(samples_ms) < max_calls and (len(samples_ms) < min_calls or spent_ms < min_ms):
        samples_ms.append(timed())
        spent_ms += samples_ms[-1]
    return samples_ms


def main() -> None:
    """Run the process."""
    serve(Worker().answer)


def _check_finite(outputs: object) -> None:
    if not all(np.isfinite(array).all() for array in arrays_of(outputs)):
        raise UsageError("its outputs hold NaN or infinity: there is nothing worth timing")


def _compiler_notes() -> list[str]:
    """How often `torch.compile` fell back to eager PyTorch, which it does silently."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    breaks = sum(dynamo.counters["graph_break"].values()) if dynamo is not None else 0
    return [f"graph-breaks: torch.compile left the graph {breaks} times"] if breaks else []


if __name__ == "__main__":
    main()
