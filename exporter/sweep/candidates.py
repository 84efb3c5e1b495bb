"""Which schedules a solver may choose from.

Where it stands on the road: between the latency table and the solvers. In: families of schedules and the model's
geometry. Out: `Candidate`s, least merging first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.errors import UsageError
from exporter.schedule import Geometry, Schedule, ScheduleKind, ScheduleRequest, plan
from exporter.sweep.grid import DENSE_METHOD, Point
from exporter.sweep.ladder import lift
from exporter.sweep.latency import LatencyTable


@dataclass(frozen=True, kw_only=True)
class Family:
    """Schedules that differ in r alone.

    Attributes:
        method: of merging.
        method_options: that were set.
        kind: how r is spread over the blocks.
        align: multiple that later counts are moved to.
        precision: of the engine.
        target: the engine's name.
    """

    method: str = DENSE_METHOD
    method_options: tuple[tuple[str, float], ...] = ()
    kind: ScheduleKind = "constant"
    align: int | None = None
    precision: str = "fp32"
    target: str = "onnx"

    def point(self, schedule: ScheduleRequest) -> Point:
        """The family's engine with a schedule; one that merges nothing is the dense point."""
        point = Point(
            method=self.method,
            method_options=self.method_options,
            schedule=schedule,
            precision=self.precision,
            target=self.target,
        )
        return point.dense if point.is_dense else point


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A schedule that a solver may measure.

    Attributes:
        point: to build.
        schedule: what it resolves to.
        predicted_speedup: by the latency table; None without one, or where it does not reach.
    """

    point: Point
    schedule: Schedule
    predicted_speedup: float | None = None


@dataclass(frozen=True, kw_only=True)
class Space:
    """Where a solver looks.

    Attributes:
        geometries: of the model, by method, with its limits.
        families: to look through.
        table: latency per token count; with it, counts are lifted to the tops of their steps.
        largest_r: the search's end, None for the most that a method removes in one block.
    """

    geometries: Mapping[str, Geometry]
    families: Sequence[Family]
    table: LatencyTable | None = None
    largest_r: int | None = None


def candidates(space: Space, family: Family) -> tuple[Candidate, ...]:
    """The distinct merging schedules of a family, least merging first."""
    geometry = space.geometries[family.method]
    largest = space.largest_r or geometry.most(geometry.tokens)
    found: dict[tuple[int, ...], Candidate] = {}
    for r in range(1, largest + 1):
        request = ScheduleRequest(kind=family.kind, r=r, align=family.align)
        schedule = plan(request, geometry)
        better = _lifted(schedule, space, geometry)
        if better.tokens != schedule.tokens:
            schedule, request = better, ScheduleRequest(r_per_layer=better.removed)
        if not schedule.is_dense:
            predicted = _predicted(schedule, space)
            candidate = Candidate(point=family.point(request), schedule=schedule, predicted_speedup=predicted)
            found.setdefault(schedule.removed, candidate)
    return tuple(sorted(found.values(), key=lambda each: -sum(each.schedule.tokens)))


def checked_families(space: Space) -> Sequence[Family]:
    """The families of a space that a solver can work with.

    Raises:
        UsageError: there are none, or the one latency table would have to speak for several engines.
    """
    if not space.families:
        raise UsageError("sweep: no method and schedule to look through; give at least one")
    engines = {(family.target, family.precision) for family in space.families}
    if space.table is not None and len(engines) > 1:
        listed = ", ".join(sorted(" ".join(engine) for engine in engines))
        raise UsageError(
            f"sweep: a latency table is of one engine, got {listed}; give one target and precision"
        )
    return space.families


def _lifted(schedule: Schedule, space: Space, geometry: Geometry) -> Schedule:
    if space.table is None or not space.table.covers(schedule.tokens):
        return schedule
    return lift(schedule, space.table, geometry)


def _predicted(schedule: Schedule, space: Space) -> float | None:
    if space.table is None or not space.table.covers(schedule.tokens):
        return None
    dense = space.table.predict(schedule.tokens[:1] * len(schedule.tokens))
    return dense / space.table.predict(schedule.tokens)
