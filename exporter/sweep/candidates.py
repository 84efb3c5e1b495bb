"""Which schedules a solver may choose from.

In: families of schedules, each a point whose schedule says all but r, and the model's geometry. Out: `Candidate`s,
least merging first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exporter.errors import UsageError
from exporter.schedule import Geometry, Schedule, ScheduleRequest, plan
from exporter.sweep.grid import Point
from exporter.sweep.latency import LatencyTable
from exporter.sweep.table_engines import lift

DROP_SHARES = (0.0, 0.5, 1.0)
"""Of the tokens that leave a block, what is dropped: a solver looks through the schedules of each share apart."""


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
        families: to look through, as `families` gives them.
        table: latency per token count; with it, counts are lifted to the tops of their steps.
        largest_r: the search's end, None for the most that a method removes in one block.
    """

    geometries: Mapping[str, Geometry]
    families: Sequence[Point]
    table: LatencyTable | None = None
    largest_r: int | None = None


def candidates(space: Space, family: Point) -> tuple[Candidate, ...]:
    """The distinct merging schedules of a family, least merging first."""
    geometry, table = space.geometries[family.method], space.table
    largest = space.largest_r or geometry.most(geometry.tokens)
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], Candidate] = {}
    for r in range(1, largest + 1):
        request = replace(family.schedule, r=r)
        schedule = plan(request, geometry)
        if table is not None and table.covers(schedule.tokens):
            better = lift(schedule, table, geometry)
            if better.tokens != schedule.tokens:
                schedule = better
                request = better.lists if geometry.pairs else ScheduleRequest(r_per_layer=better.removed)
        if not schedule.is_dense:
            candidate = Candidate(
                point=family.scheduled(request),
                schedule=schedule,
                predicted_speedup=_predicted(schedule, table),
            )
            found.setdefault((schedule.merged, schedule.dropped), candidate)
    return tuple(sorted(found.values(), key=lambda each: -sum(each.schedule.tokens)))


def with_drop_shares(families: Sequence[Point], geometries: Mapping[str, Geometry]) -> tuple[Point, ...]:
    """The families, each of a method that takes pairs of counts once per share of `DROP_SHARES`."""
    return tuple(
        replace(family, schedule=replace(family.schedule, drop_share=share or None))
        for family in families
        for share in (DROP_SHARES if geometries[family.method].pairs else (0.0,))
    )


def checked_families(space: Space) -> Sequence[Point]:
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


def _predicted(schedule: Schedule, table: LatencyTable | None) -> float | None:
    if table is None or not table.covers(schedule.tokens):
        return None
    return table.predict(schedule.tokens[:1] * len(schedule.tokens)) / table.predict(schedule.tokens)
