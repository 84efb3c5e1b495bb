"""What is compiled on the device, in processes beside the one that times.

Kernels in Triton, which are compiled when a program first runs, have a process of their own: they take seconds. Engines
take a minute or more each.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from exporter.processes.child import Child, ChildFailure

LIMIT_S = 300.0
"""For one build, the time in which it is stopped included."""


class Builds:
    """Entries of a plan that are being built, by their places."""

    def __init__(self, start: Callable[[str], Child], kernels: list[int], engines: list[int]) -> None:
        """Begin.

        Args:
            start: starts a worker, given its name.
            kernels: programs whose kernels are compiled, the most important first.
            engines: that are built, likewise.
        """
        self._start = start
        shared = list(engines)
        self._waiting = {"kernels": list(kernels), "engines-1": shared, "engines-2": shared}
        self._failures: dict[int, str | None] = {}
        self._busy: dict[str, tuple[Child, int, float]] = {}
        for name in self._waiting:
            self._give(name, None)

    def ready(self, place: int) -> bool:
        """Whether an entry is built, or has failed, or needs no building."""
        return not any(place in waiting for waiting in self._waiting.values()) and not any(
            place == built for _, built, _ in self._busy.values()
        )

    def failure(self, place: int) -> str | None:
        """Why an entry was not built."""
        return self._failures.get(place)

    def collect(self, wait_s: float) -> None:
        """Take what is finished, and give out what waits."""
        children = [child for child, _, _ in self._busy.values()]
        finished = select.select(children, [], [], wait_s)[0] if children else []
        for name, (child, place, begun) in list(self._busy.items()):
            if child not in finished and time.monotonic() - begun < LIMIT_S:
                continue
            kept: Child | None = child
            try:
                self._failures[place] = child.answer(timeout_s=0.1, to="being built").get("failed")
            except ChildFailure as failure:
                self._failures[place] = str(failure)
                child.kill()
                kept = None
            del self._busy[name]
            self._give(name, kept)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Nothing is built in the block."""
        pids = [child.pid for child, _, _ in self._busy.values()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        """Kill all of them."""
        for child, _, _ in self._busy.values():
            child.kill()
        self._busy.clear()

    def _give(self, name: str, child: Child | None) -> None:
        waiting = self._waiting[name]
        if not waiting:
            if child is not None:
                child.kill()
            return
        child = child or self._start(name)
        self._busy[name] = (child, waiting.pop(0), time.monotonic())
        child.send({"ask": "build", "entry": self._busy[name][1]})
