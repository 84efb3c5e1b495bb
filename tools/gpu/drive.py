"""Go down the list within the time: have each contender of a job built, then race what was built.

In: a list of jobs and seconds. Out: a `Check`, given to the caller after every job. What did not run has its reason.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exporter.benchmark import Contender, Device, Progress, Race, RaceOptions, WarmUp, race
from exporter.benchmark.race import WORKER, worker_environment
from exporter.errors import ExportError, TargetUnavailableError, UsageError
from exporter.machine import usable_cores
from exporter.processes.child import Child, ChildFailure
from exporter.records import message_from
from tools.gpu.jobs import BASELINE, LISTS, Job
from tools.gpu.programs import Programs

BUILD_LIMIT_S = 200.0
"""No contender may take longer to build: others wait for it."""

LEAST_S = 20.0
"""A job is not begun with less time left."""

LAUNCHES, ROUNDS, ROUND_MS = 2, 4, 200.0
WARM_UP = WarmUp(window_ms=60.0, most_ms=2500.0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run.

    Attributes:
        jobs: a key of `LISTS`.
        device: `cuda`, or `cpu` for a dry run.
        budget_s: seconds for everything.
        work: an existing folder for contenders, logs and compiler caches.
        only: run jobs whose names contain one of these; empty for all.
        builder: the command that runs `build`; device and folder are appended.
        worker: the command that runs a worker of a race.
    """

    jobs: str
    device: Device
    budget_s: float
    work: Path
    only: tuple[str, ...] = ()
    builder: tuple[str, ...] = (sys.executable, "-m", "tools.gpu.build")
    worker: tuple[str, ...] = WORKER

    def __post_init__(self) -> None:
        """Refuse to run nothing.

        Raises:
            UsageError: no job has such a name.
        """
        names = [job.name for job in LISTS[self.jobs]]
        if not any(map(self.wants, names)):
            raise UsageError(
                f"--only: expected parts of {', '.join(names[:4])} and so on, got {','.join(self.only)}"
            )

    def wants(self, name: str) -> bool:
        """Whether a job is asked for."""
        return not self.only or any(part in name for part in self.only)


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The result of a job.

    Attributes:
        job: what was asked.
        reason: why it was not raced; empty if it was.
        seconds: that it took.
        facts: of what was built, by name of the way: parity, seconds, engine, kernels.
        failed: why the others were not built.
        race: None if it was not raced.
    """

    job: Job
    reason: str = ""
    seconds: float = 0.0
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    race: Race | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """The whole run up to now.

    Attributes:
        machine: GPU and versions.
        budget_s: that it may take.
        seconds: that it took.
        finished: whether the end of the list was reached.
        jobs: in order.
    """

    machine: Mapping[str, Any]
    budget_s: float
    seconds: float
    finished: bool
    jobs: tuple[JobResult, ...]


class _OutOfTime(Exception):
    """Ends a race."""


def run(
    settings: Settings, tell: Callable[[Check], None], clock: Callable[[], float] = time.monotonic
) -> Check:
    """Run every job in order, as far as the time goes.

    Args:
        settings: how.
        tell: given all results after every job.
        clock: seconds, from any start.

    Raises:
        TargetUnavailableError: the device is not here.
    """
    driver = _Driver(settings, clock)
    try:
        return driver.run(tell)
    finally:
        driver.end_builder()


class _Driver:
    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._started = clock()
        self._builder: Child | None = None
        self._builders = 0

    def run(self, tell: Callable[[Check], None]) -> Check:
        try:
            machine = self._ask({"ask": "machine"}, max(self._left, 1.0))
        except ChildFailure as failure:
            raise TargetUnavailableError(str(failure)) from None
        results: list[JobResult] = []

        def check(*, finished: bool) -> Check:
            return Check(
                machine=machine,
                budget_s=self._settings.budget_s,
                seconds=round(self._clock() - self._started, 1),
                finished=finished,
                jobs=tuple(results),
            )

        for place, job in enumerate(LISTS[self._settings.jobs]):
            results.append(self._attempt(place, job))
            tell(check(finished=False))
        tell(check(finished=True))
        return check(finished=True)

    def end_builder(self) -> None:
        if self._builder is not None:
            self._builder.kill()
            self._builder = None

    @property
    def _left(self) -> float:
        return self._settings.budget_s - (self._clock() - self._started)

    def _attempt(self, place: int, job: Job) -> JobResult:
        if not self._settings.wants(job.name):
            return JobResult(job=job, reason="not asked for")
        began, left = self._clock(), self._left
        if left < LEAST_S:
            return JobResult(job=job, reason=f"no time: {max(left, 0):.0f} s were left")
        contenders: list[Contender] = []
        facts: dict[str, Mapping[str, Any]] = {}
        failed: dict[str, str] = {}
        for number, way in enumerate(job.ways):
            if way.graph and self._settings.device == "cpu":
                failed[way.name] = "CUDA graphs need a GPU"
                continue
            try:
                limit = max(min(BUILD_LIMIT_S, self._left), 1.0)
                request = {"ask": "build", "list": self._settings.jobs, "job": place, "way": number}
                answer = self._ask(request, limit)
            except ChildFailure as failure:
                failed[way.name] = str(failure)
                self.end_builder()
                continue
            if "failed" in answer:
                failed[way.name] = answer["failed"]
                continue
            contenders.append(message_from(Contender, answer["contender"]))
            facts[way.name] = answer["facts"]
        raced, reason = self._race(job, contenders)
        return JobResult(
            job=job,
            reason=reason,
            seconds=round(self._clock() - began, 1),
            facts=facts,
            failed=failed,
            race=raced,
        )

    def _race(self, job: Job, contenders: list[Contender]) -> tuple[Race | None, str]:
        """The race, or why there is none."""
        if not any(each.name != BASELINE.name for each in contenders):
            return None, "nothing was built to compare the baseline with"
        settings = self._settings
        images = settings.work / f"images-{job.model}-{job.batch}.npy"
        if not images.exists():
            np.save(images, Programs(name=job.model, device="cpu").images(job.batch))
        options = RaceOptions(
            threads=self._threads,
            work=settings.work,
            launches=LAUNCHES,
            rounds=ROUNDS,
            min_round_ms=ROUND_MS,
            device=settings.device,
            warm_up=WARM_UP,
            rest_ms=50.0,
            timeout_s=BUILD_LIMIT_S,
            worker=settings.worker,
        )
        try:
            return race(contenders, {job.batch: images}, options, self._check_time), ""
        except _OutOfTime:
            return None, "no time: the race did not end"
        except ExportError as error:
            return None, str(error)

    def _check_time(self, _: Progress) -> None:
        if self._left <= 0:
            raise _OutOfTime

    @property
    def _threads(self) -> int:
        return len(usable_cores()) if self._settings.device == "cuda" else 1

    def _ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        settings = self._settings
        if self._builder is None:
            self._builders += 1
            environment = worker_environment(self._threads, settings.work)
            environment["TORCHINDUCTOR_COMPILE_THREADS"] = str(
                len(usable_cores())
            )  # nothing is timed meanwhile
            self._builder = Child(
                (*settings.builder, settings.device, str(settings.work)),
                {**environment, "HF_HUB_OFFLINE": "1"},
                settings.work / f"builder-{self._builders}.log",
            )
        return self._builder.ask(request, timeout_s=timeout_s)
