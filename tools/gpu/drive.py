"""Go down the list within the time: one process times, others build what the GPU has to compile.

In: a prepared folder and seconds. Out: a `Check`, given to the caller after every contender. What did not run has its
reason. Builders are stopped while anything is timed, and nothing waits for them as long as something else is ready.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.benchmark import Device
from exporter.benchmark.race import worker_environment
from exporter.errors import TargetUnavailableError
from exporter.machine import usable_cores
from exporter.processes.child import Child, ChildFailure
from tools.gpu.builds import Builds
from tools.gpu.contenders import BUILT, Contender, chosen
from tools.gpu.plan import Entry, Plan, read_plan

START_LIMIT_S = 120.0
"""For the first answer of a process: PyTorch is read from the disk, and CUDA starts."""

LIMIT_S: Mapping[Device, float] = {"cuda": 14.0, "cpu": 300.0}
"""For all of a contender; with the start of the process that follows, one that hangs on a GPU costs 20 s."""

LEAST_S = 5.0
"""Nothing is begun with less time left."""

_POLL_S = 0.5

COMPILE_THREADS = 4

WORKER = (sys.executable, "-m", "tools.gpu.worker")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run.

    Attributes:
        prepared: the folder of `prepare`.
        device: `cuda`, or `cpu` for a dry run.
        budget_s: seconds for everything.
        work: an existing folder for engines, logs and compiler caches.
        only: run contenders whose names contain one of these; empty for all.
        worker: the command of a worker; device and folders are appended.
    """

    prepared: Path
    device: Device
    budget_s: float
    work: Path
    only: tuple[str, ...] = ()
    worker: tuple[str, ...] = WORKER


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a contender.

    Attributes:
        entry: of the plan.
        reason: why it was not timed; empty if it was.
        seconds: that it took.
        facts: parity, and kernels where they were asked for.
        rounds: milliseconds of each call, by round.
    """

    entry: Entry
    reason: str = ""
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    rounds: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Check:
    """The whole run up to now.

    Attributes:
        machine: GPU and versions.
        plan: what was prepared.
        budget_s: that it may take.
        seconds: that it took.
        results: of what was asked for, in the order of the list; what was not reached yet has that as its reason.
    """

    machine: Mapping[str, Any]
    plan: Plan
    budget_s: float
    seconds: float
    results: tuple[Result, ...]


def run(
    settings: Settings, tell: Callable[[Check, Result], None], clock: Callable[[], float] = time.monotonic
) -> None:
    """Time every contender, the most important first, as far as the time goes.

    Args:
        settings: how.
        tell: given all results after every contender, and the latest.
        clock: seconds, from any start.

    Raises:
        TargetUnavailableError: the device is not here.
        UsageError: no contender has such a name.
        BundleError: the folder was not prepared.
    """
    driver = _Driver(settings, clock)
    try:
        driver.run(tell)
    finally:
        driver.end()


class _Driver:
    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._started = clock()
        self._plan = read_plan(settings.prepared)
        self._results: dict[int, Result] = {}
        self._timer: Child | None = None
        self._machine: Mapping[str, Any] = {}
        self._asked: set[Contender] = set()
        self._builds: Builds | None = None

    def run(self, tell: Callable[[Check, Result], None]) -> None:
        entries = self._plan.entries
        self._asked = set(chosen([each.contender for each in entries], self._settings.only))
        asked = [place for place, each in enumerate(entries) if each.contender in self._asked]
        try:
            self._timing_process()
        except ChildFailure as failure:
            raise TargetUnavailableError(str(failure)) from None
        built = [place for place in asked if self._is_built(entries[place])]
        engines = [place for place in built if entries[place].contender.kind in BUILT]
        kernels = [place for place in built if place not in engines]
        builds = self._builds = Builds(self._start, kernels, engines)
        while asked:
            place = next(filter(builds.ready, asked), None)
            if place is None and self._left > LEAST_S:
                builds.collect(_POLL_S)
                continue
            place = asked[0] if place is None else place
            asked.remove(place)
            self._results[place] = self._attempt(place)
            tell(self._check(), self._results[place])
            builds.collect(0)

    def end(self) -> None:
        """Kill every process."""
        self._end_timer()
        if self._builds is not None:
            self._builds.end()

    @property
    def _left(self) -> float:
        return self._settings.budget_s - (self._clock() - self._started)

    def _is_built(self, entry: Entry) -> bool:
        """Engines are; and kernels in Triton, which are compiled when they first run on a GPU."""
        contender = entry.contender
        compiled = contender.kind in BUILT or (
            contender.merge == "kernels" and self._settings.device == "cuda"
        )
        return compiled and not entry.missing

    def _check(self) -> Check:
        results = tuple(
            self._results.get(place) or Result(entry=entry, reason="not reached")
            for place, entry in enumerate(self._plan.entries)
            if entry.contender in self._asked
        )
        return Check(
            machine=self._machine,
            plan=self._plan,
            budget_s=self._settings.budget_s,
            seconds=round(self._clock() - self._started, 1),
            results=results,
        )

    def _attempt(self, place: int) -> Result:
        entry, began = self._plan.entries[place], self._clock()
        assert self._builds is not None
        reason = entry.missing or self._builds.failure(place)
        if reason is None and self._left < LEAST_S:
            reason = f"no time: {max(self._left, 0):.0f} s were left"
        if reason:
            return Result(entry=entry, reason=reason)
        try:
            facts, rounds, reason = self._time(place)
        except ChildFailure as failure:
            self._end_timer()
            facts, rounds, reason = {}, (), str(failure)
        return Result(
            entry=entry, reason=reason, seconds=round(self._clock() - began, 1), facts=facts, rounds=rounds
        )

    def _time(self, place: int) -> tuple[dict[str, Any], tuple[tuple[float, ...], ...], str]:
        """Facts and times of a contender, or why there are none."""
        process = self._timing_process()
        ends = self._clock() + min(LIMIT_S[self._settings.device], self._left)

        def ask(what: str) -> dict[str, Any]:
            return process.ask({"ask": what, "entry": place}, timeout_s=max(ends - self._clock(), 0.1))

        facts = ask("load")
        if "failed" in facts:
            return {}, (), str(facts["failed"])
        assert self._builds is not None
        with self._builds.stopped():
            timed = ask("time")
            if self._plan.entries[place].contender.listed:
                facts |= self._kernels(ask)
        return {**facts, "settled": timed["settled"]}, tuple(map(tuple, timed["rounds"])), ""

    def _kernels(self, ask: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        """What was timed is kept where the profiler fails."""
        try:
            return ask("kernels")
        except ChildFailure as failure:
            self._end_timer()
            return {"kernels_failed": str(failure)}

    def _timing_process(self) -> Child:
        if self._timer is None:
            self._timer = self._start("timer")
            self._machine = self._timer.ask({"ask": "machine"}, timeout_s=START_LIMIT_S)
        return self._timer

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.kill()
            self._timer = None

    def _start(self, name: str) -> Child:
        settings = self._settings
        threads = len(usable_cores()) if settings.device == "cuda" else 1
        environment = worker_environment(threads, settings.work)
        environment["TORCHINDUCTOR_COMPILE_THREADS"] = str(min(threads, COMPILE_THREADS))
        folders = (str(settings.prepared.absolute()), str(settings.work.absolute()))
        return Child(
            (*settings.worker, settings.device, *folders),
            {**environment, "HF_HUB_OFFLINE": "1"},
            settings.work / f"{name}.log",
        )
