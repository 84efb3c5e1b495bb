"""Every point built, then timed, each stage once, whatever interrupts the sweep.

In: points, how to build and how to time one, and a store. Out: a `PointResult` per point. Builds run beside each other
in processes of their own; timing runs alone, one point after another, when all builds are done.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from exporter.errors import InternalError, UsageError
from exporter.sweep.cache import Found, Stage, Store
from exporter.sweep.grid import Point
from exporter.sweep.record import Built, Failure, PointResult, Timed
from exporter.sweep.workers import Builder, Outcome, attempt, outcomes

ProgressKind = Literal["reused", "building", "built", "timing", "timed", "failed", "warning"]


def _always(_: Point, __: Built) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the driver is to call.

    Attributes:
        build: runs the processes that make a point's engine and measure how good it is.
        time: measures how fast it is; called in this process, with nothing beside it. None: points are built only.
        stands: whether the engine that an earlier run built is still there; called if timing needs it.
    """

    build: Builder
    time: Callable[[Point], Timed] | None
    stands: Callable[[Point, Built], bool] = _always


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One thing that happened.

    Attributes:
        kind: reused (from an earlier run), building, built, timing, timed, failed, or warning.
        name: of the point.
        done: stages that need no more work.
        total: stages in all.
        message: one line, for failed and warning.
        details: traceback of what failed.
    """

    kind: ProgressKind
    name: str
    done: int
    total: int
    message: str = ""
    details: str = ""


OnProgress = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Default progress callback; does nothing."""


def drive(
    points: Sequence[Point], work: Work, store: Store, *, jobs: int = 1, on_progress: OnProgress = silent
) -> tuple[PointResult, ...]:
    """Build and time every point that the store does not have.

    A point that fails is recorded with its error, and the others go on; it is tried again by the next run. What is
    finished is in the store at once: after a kill or an interrupt, the same call goes on from there.

    Args:
        points: what to do, in this order; a repeated point is done once.
        work: how.
        store: of an open sweep folder.
        jobs: builds at once; see `jobs_that_fit`.
        on_progress: told about everything that happens.

    Raises:
        UsageError: jobs is not positive, or the store cannot be written.
        KeyboardInterrupt: as it came, when all workers are stopped.
    """
    if jobs < 1:
        raise UsageError(f"sweep: expected at least one job, got {jobs}")
    points = tuple(dict.fromkeys(points))
    run = _Run(points, work, store, on_progress)
    run.look_up()
    run.build(jobs)
    if work.time is not None:
        run.time(work.time)
    return tuple(map(run.result, points))


def finished(points: Sequence[Point], store: Store) -> tuple[PointResult, ...]:
    """What the store has of the points, with no work done: the record of a sweep that was interrupted."""
    run = _Run(tuple(dict.fromkeys(points)), None, store, silent)
    run.look_up()
    return tuple(map(run.result, run.points))


def jobs_that_fit(point_memory_bytes: int, available_bytes: int, cores: int) -> int:
    """How many builds may run at once: as many as memory and cores have room for, and never less than one.

    Args:
        point_memory_bytes: peak of one build.
        available_bytes: of memory.
        cores: that this process may use.

    Raises:
        ValueError: the peak is not positive.
    """
    if point_memory_bytes <= 0:
        raise ValueError(f"expected a positive peak, got {point_memory_bytes}")
    return max(1, min(available_bytes // point_memory_bytes, cores))


class _Run:
    """The state of one call of `drive`: what is finished, what failed, and who is told."""

    def __init__(
        self, points: tuple[Point, ...], work: Work | None, store: Store, on_progress: OnProgress
    ) -> None:
        self.points = points
        self._work = work
        self._store = store
        self._on_progress = on_progress
        self._built: dict[Point, Built] = {}
        self._timed: dict[Point, Timed] = {}
        self._failures: dict[Point, Failure] = {}
        self._stages = 1 if work is not None and work.time is None else 2

    def look_up(self) -> None:
        """Takes from the store what is finished and can be believed."""
        for point in self.points:
            built: Found[Built] = self._store.find(point, "built")
            timed: Found[Timed] = self._store.find(point, "timed")
            for complaint in filter(None, (built.complaint, timed.complaint)):
                self._tell("warning", point, complaint)
            if built.value is not None:
                self._built[point] = built.value
            if timed.value is not None:
                self._timed[point] = timed.value
        self._drop_missing_engines()
        for point in self.points:
            if point in self._built and (point in self._timed or self._stages == 1):
                self._tell("reused", point)

    def _drop_missing_engines(self) -> None:
        """Forgets engines that timing needs and that are no longer there."""
        if self._work is None or self._stages == 1:
            return
        to_time = [point for point in self.points if point not in self._timed]
        for point in dict.fromkeys([*to_time, *(each.dense for each in to_time)]):
            built = self._built.get(point)
            if built is not None and not self._work.stands(point, built):
                del self._built[point]
                self._tell("warning", point, "its engine is no longer there; built again")

    def build(self, jobs: int) -> None:
        """The first stage of all points that lack it."""
        assert self._work is not None
        missing = [point for point in self.points if point not in self._built]
        calls = outcomes(self._work.build, missing, jobs, lambda point: self._tell("building", point))
        with closing(calls):
            for point, outcome in calls:
                if isinstance(outcome.value, Built):
                    outcome = self._kept(point, "built", outcome)
                if isinstance(outcome.value, Built):
                    self._built[point] = outcome.value
                    self._tell("built", point)
                else:
                    self._fail(point, "build", outcome)

    def time(self, call: Callable[[Point], Timed]) -> None:
        """The second stage of all built points that lack it."""
        for point in self.points:
            if point not in self._built or point in self._timed:
                continue
            self._tell("timing", point)
            outcome = attempt(call, point)
            if isinstance(outcome.value, Timed):
                outcome = self._kept(point, "timed", outcome)
            if isinstance(outcome.value, Timed):
                self._timed[point] = outcome.value
                self._tell("timed", point)
            else:
                self._fail(point, "time", outcome)

    def result(self, point: Point) -> PointResult:
        """What is known of a point by now."""
        done = point in self._built and point in self._timed
        return PointResult(
            name=point.name,
            point=point,
            key=self._store.key(point),
            status="failed" if point in self._failures else "done" if done else "open",
            built=self._built.get(point),
            timed=self._timed.get(point),
            failure=self._failures.get(point),
        )

    def _kept(self, point: Point, stage: Stage, outcome: Outcome) -> Outcome:
        """Writes a result; one that JSON has no form for, such as not-a-number, is a failure of its point."""
        assert isinstance(outcome.value, Built | Timed)
        try:
            self._store.keep(point, stage, outcome.value)
        except (TypeError, ValueError) as error:
            line = f"its result cannot be written: {error}"
            return Outcome(error=line, exit_status=InternalError.exit_status, details=repr(outcome.value))
        return outcome

    def _fail(self, point: Point, stage: Literal["build", "time"], outcome: Outcome) -> None:
        if outcome.error is None:
            raise InternalError(f"the {stage} callback of a sweep returned {type(outcome.value).__name__}")
        self._failures[point] = Failure(stage=stage, error=outcome.error, exit_status=outcome.exit_status)
        self._tell("failed", point, outcome.error, outcome.details)

    def _tell(self, kind: ProgressKind, point: Point, message: str = "", details: str = "") -> None:
        done = len(self._built) + (len(self._timed) if self._stages == 2 else 0)
        self._on_progress(
            Progress(
                kind=kind,
                name=point.name,
                done=done,
                total=self._stages * len(self.points),
                message=message,
                details=details,
            )
        )
