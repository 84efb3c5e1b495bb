"""Go down the list within the budget: ask the worker, keep what it says, and lose nothing without a word.

In: a list of jobs and seconds. Out: a `Check`, told to the caller after every job.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.benchmark.race import worker_environment
from exporter.errors import TargetUnavailableError, UsageError
from exporter.processes.child import Child, ChildFailure
from tools.gpu.jobs import LISTS, MODELS, Contender, Job
from tools.gpu.results import Check, Entry, JobResult, Round
from tools.gpu.timing import Device

BUILD_LIMIT_S = 200.0
"""No contender may take longer to build: others wait behind it."""

RESERVE_S = 6.0
"""Left for rounds when a build is given the rest of the time."""

LEAST_ROUNDS = 2
"""Fewer give no interval."""

MOST_RESTARTS = 2
"""Of a job whose contenders end the worker."""

_COMPILE_THREADS = "TORCHINDUCTOR_COMPILE_THREADS"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run.

    Attributes:
        jobs: which of `LISTS`.
        device: `cuda`, or `cpu` for a dry run.
        budget_s: seconds for everything.
        work: an existing folder for logs and compiler caches.
        rounds: per job.
        only: run jobs whose names contain one of these; empty for all.
        worker: the command that runs a worker; the device follows.
    """

    jobs: str
    device: Device
    budget_s: float
    work: Path
    worker: tuple[str, ...]
    rounds: int = 6
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to run nothing.

        Raises:
            UsageError: no job has such a name.
        """
        names = [job.name for job in LISTS[self.jobs]]
        if not any(self.wants(name) for name in names):
            raise UsageError(
                f"--only: expected parts of {', '.join(names[:4])} and so on, got {','.join(self.only)}"
            )

    def wants(self, name: str) -> bool:
        """Whether a job is asked for."""
        return not self.only or any(part in name for part in self.only)


class Driver:
    """Runs one list of jobs."""

    def __init__(self, settings: Settings, machine: Mapping[str, Any], clock: Callable[[], float]) -> None:
        """Start the clock.

        Args:
            settings: how.
            machine: what is known of it already.
            clock: seconds, from anywhere.
        """
        self._settings = settings
        self._machine = dict(machine)
        self._clock = clock
        self._started = clock()
        self._process: Child | None = None
        self._workers = 0

    def run(self, tell: Callable[[Check], None]) -> Check:
        """Every job in order, or why not.

        Args:
            tell: told all there is, after every job.

        Raises:
            TargetUnavailableError: the device is not here.
        """
        try:
            self._machine |= self._introduced()
            results: list[JobResult] = []
            for place, job in enumerate(LISTS[self._settings.jobs]):
                results.append(self._attempt(place, job))
                tell(self._check(results, finished=False))
            check = self._check(results, finished=True)
            tell(check)
            return check
        finally:
            self._dismiss()

    @property
    def _left(self) -> float:
        return self._settings.budget_s - (self._clock() - self._started)

    def _check(self, results: list[JobResult], *, finished: bool) -> Check:
        return Check(
            machine=self._machine,
            budget_s=self._settings.budget_s,
            seconds=round(self._clock() - self._started, 1),
            finished=finished,
            jobs=tuple(results),
        )

    def _introduced(self) -> dict[str, Any]:
        try:
            return self._ask({"ask": "machine"}, max(self._left, 1.0))
        except ChildFailure as failure:
            raise TargetUnavailableError(str(failure)) from None

    def _attempt(self, place: int, job: Job) -> JobResult:
        left = self._left
        if not self._settings.wants(job.name):
            return _Sheet(job).result(0.0, "not asked for")
        if left < job.needs_s:
            why = f"no time: it takes {job.needs_s:g} s or more, and {max(left, 0):.0f} s were left"
            return _Sheet(job).result(0.0, why)
        began = self._clock()
        sheet = _Sheet(job)
        why = self._built(place, job, sheet)
        if not why and sheet.ready:
            why = self._measured(job, sheet)
        return sheet.result(round(self._clock() - began, 1), why)

    def _built(self, place: int, job: Job, sheet: "_Sheet") -> str:
        """Build what can be built; why the job ends here, if it does."""
        for _ in range(1 + MOST_RESTARTS):
            sheet.forget_built()
            try:
                self._ask({"ask": "open", "list": self._settings.jobs, "job": place}, max(self._left, 1.0))
            except ChildFailure as failure:
                self._dismiss()
                return str(failure)
            if all(self._build(number, job, sheet) for number in sheet.order()):
                return ""
            self._dismiss()
        return f"gave up after {1 + MOST_RESTARTS} processes that contenders ended"

    def _build(self, number: int, job: Job, sheet: "_Sheet") -> bool:
        """One contender; whether the worker survived it."""
        contender = job.contenders[number]
        if contender.kind == "model" and not sheet.ready and not _only_models(job):
            sheet.skip(number, "nothing was built to compare it with")
            return True
        allowed = min(BUILD_LIMIT_S, self._left - RESERVE_S)
        if allowed <= 0:
            sheet.skip(number, "no time was left to build it")
            return True
        try:
            answer = self._ask({"ask": "build", "contender": number}, allowed)
        except ChildFailure as failure:
            sheet.fail(number, {contender.name: str(failure)})
            return False
        if answer["ruined"]:
            reasons = {contender.name: "it left the GPU in an error state", **answer["failed"]}
            sheet.fail(number, reasons)
            return False
        sheet.note(number, answer)
        return True

    def _measured(self, job: Job, sheet: "_Sheet") -> str:
        """Time or list what was built; why that ended early, if it did."""
        try:
            if job.purpose == "kernels":
                sheet.kernels = self._ask({"ask": "kernels"}, max(self._left, 1.0))["kernels"]
                return ""
            took = 1.0
            for number in range(self._settings.rounds):
                began = self._clock()
                if self._left < took:
                    return f"no time: {number} of {self._settings.rounds} rounds were run"
                answer = self._ask({"ask": "round", "seed": number}, max(self._left, 1.0) + RESERVE_S)
                sheet.rounds.append(answer["rounds"])
                sheet.clocks.append(answer["clocks"])
                took = max(1.0, self._clock() - began)
        except ChildFailure as failure:
            self._dismiss()
            return str(failure)
        return ""

    def _ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        if self._process is None:
            settings = self._settings
            self._workers += 1
            threads = len(os.sched_getaffinity(0)) if settings.device == "cuda" else 1
            environment = worker_environment(threads, settings.work)
            environment.pop(_COMPILE_THREADS)  # all cores compile here: nothing is timed meanwhile
            if _COMPILE_THREADS in os.environ:
                environment[_COMPILE_THREADS] = os.environ[_COMPILE_THREADS]
            self._process = Child(
                (*settings.worker, settings.device),
                {**environment, "HF_HUB_OFFLINE": "1"},
                settings.work / f"worker-{self._workers}.log",
            )
        return self._process.ask(request, timeout_s=timeout_s)

    def _dismiss(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None


def _only_models(job: Job) -> bool:
    return all(contender.kind == "model" for contender in job.contenders)


@dataclass(kw_only=True)
class _Noted:
    """What the worker said of a contender that it built."""

    executed_macs: int
    facts: Mapping[str, Mapping[str, Any]]


@dataclass
class _Sheet:
    """What is written down of a job while it runs."""

    job: Job
    noted: dict[int, _Noted] = field(default_factory=dict)
    failed: dict[int, dict[str, str]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    banned: set[int] = field(default_factory=set)
    rounds: list[Mapping[str, Any]] = field(default_factory=list)
    clocks: list[Mapping[str, Any]] = field(default_factory=list)
    kernels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether anything can be timed."""
        return any(noted.facts for noted in self.noted.values())

    def order(self) -> list[int]:
        """Places of the contenders that are still to be built: the models last, which alone are not worth a round."""
        places = [place for place in range(len(self.job.contenders)) if place not in self.banned]
        return sorted(places, key=lambda place: self.job.contenders[place].kind == "model")

    def forget_built(self) -> None:
        """A new process has built nothing."""
        self.noted.clear()
        self.skipped.clear()
        self.failed = {place: reasons for place, reasons in self.failed.items() if place in self.banned}

    def fail(self, place: int, reasons: Mapping[str, str]) -> None:
        """Not built, and not to be tried again."""
        self.failed[place] = dict(reasons)
        self.banned.add(place)

    def skip(self, place: int, why: str) -> None:
        """Not built, for no fault of its own."""
        self.skipped[place] = why

    def note(self, place: int, answer: Mapping[str, Any]) -> None:
        """Built, wholly or in part."""
        self.noted[place] = _Noted(executed_macs=answer["executed_macs"], facts=answer["facts"])
        self.failed[place] = dict(answer["failed"])

    def result(self, seconds: float, why: str) -> JobResult:
        """Every contender, with its figures or the reason for having none."""
        entries = [
            entry
            for place, contender in enumerate(self.job.contenders)
            for entry in self._entries(place, contender, why)
        ]
        return JobResult(
            name=self.job.name,
            model=MODELS[self.job.model].title,
            batch=self.job.batch,
            purpose=self.job.purpose,
            reason=why,
            seconds=seconds,
            entries=tuple(entries),
            clocks=tuple(self.clocks),
        )

    def _entries(self, place: int, contender: Contender, why: str) -> list[Entry]:
        noted, failed = self.noted.get(place), self.failed.get(place, {})
        built = [self._built_entry(contender, name, why, noted) for name in (noted.facts if noted else {})]
        lost = [_entry(contender, name, state="failed", reason=reason) for name, reason in failed.items()]
        why = self.skipped.get(place, why)
        return built + lost or [_entry(contender, contender.name, state="not run", reason=why)]

    def _built_entry(self, contender: Contender, name: str, why: str, noted: _Noted | None) -> Entry:
        assert noted is not None
        given = {"executed_macs": noted.executed_macs, "facts": noted.facts[name]}
        if name in self.kernels:
            return _entry(contender, name, state="listed", kernels=tuple(self.kernels[name]), **given)
        rounds = tuple(
            Round(
                latency_ms=tuple(each[name]["latency_ms"]),
                window_ms=each[name]["window_ms"],
                window_calls=each[name]["window_calls"],
            )
            for each in self.rounds
        )
        if len(rounds) < LEAST_ROUNDS:
            reason = f"built, not timed: {why or 'there were too few rounds'}"
            return _entry(contender, name, state="not run", reason=reason, **given)
        return _entry(contender, name, state="timed", rounds=rounds, **given)


def _entry(contender: Contender, name: str, **known: Any) -> Entry:
    form = contender.forms
    return Entry(
        name=name,
        kind=contender.kind,
        merging=contender.merging,
        precision=contender.precision,
        form=f"{form.mask}/{form.selection}" if form else "",
        cuda_graph=name != contender.name,
        **known,
    )


def run(settings: Settings, machine: Mapping[str, Any], tell: Callable[[Check], None]) -> Check:
    """Run a list of jobs by the monotonic clock; see `Driver.run`."""
    return Driver(settings, machine, time.monotonic).run(tell)
