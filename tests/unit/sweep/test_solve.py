"""The solvers: the known optimum of synthetic models, with noise, and honest answers where there is none."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil

import pytest

from exporter.errors import UsageError
from exporter.schedule import Geometry, Schedule, ScheduleRequest, all_patches_but_one, plan
from exporter.sweep import (
    Candidate,
    LatencyTable,
    Measurement,
    Point,
    Space,
    candidates,
    fit,
    solve_max_drop,
    solve_min_speedup,
    table_engines,
    with_drop_shares,
)

VIT_B = Geometry(tokens=197, protected=1, blocks=12)
WEIGHTS = (1 / 3, *[1.0] * 11, 2 / 3)
TOME = Point()
FAMILIES = (TOME, Point(method="pitome"), Point(schedule=ScheduleRequest(kind="decreasing")))
COUNTS = tuple(range(1, 198))
LINE = LatencyTable(
    counts=COUNTS,
    extra_ms=tuple(0.02 * (count - 1) for count in COUNTS),
    base_ms=3,
    merge_ms=0.1,
    weights=WEIGHTS,
)
STEPS = replace(LINE, extra_ms=tuple(float((count - 1) // 32) for count in COUNTS))


@dataclass
class World:
    """Synthetic models: what a schedule loses and how fast it is, and how often that was asked."""

    bias: float = 1.0
    noise: dict[str, float] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    asked_drops: list[str] = field(default_factory=list)
    asked_speedups: list[str] = field(default_factory=list)

    def drop(self, point: Point) -> float | None:
        if point.name in self.broken:
            return None
        schedule = resolved(point)
        per_token = 0.006 if point.method == "pitome" else 0.01
        return per_token * (197 * 13 - sum(schedule.tokens)) / 10 + self.noise.get(point.name, 0)

    def speedup(self, point: Point) -> float | None:
        slower = 1.05 if point.method == "pitome" else 1.0
        return self.bias * LINE.predict((197,) * 13) / (slower * LINE.predict(resolved(point).tokens))

    def drops(self, points: Sequence[Point]) -> list[float | None]:
        self.asked_drops += [point.name for point in points]
        return [self.drop(point) for point in points]

    def speedups(self, points: Sequence[Point]) -> list[float | None]:
        self.asked_speedups += [point.name for point in points]
        return [self.speedup(point) for point in points]


def resolved(point: Point) -> Schedule:
    return plan(point.schedule, VIT_B)


def name(r: int) -> str:
    return TOME.scheduled(ScheduleRequest(r=r)).name


def everything(space: Space) -> list[Candidate]:
    return [each for family in space.families for each in candidates(space, family)]


SPACE = Space(geometries={"tome": VIT_B, "pitome": VIT_B}, families=FAMILIES, table=LINE, largest_r=16)
TOME_ONLY = replace(SPACE, families=(TOME,))


# At most X lost ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.4, 1.0, 1.1, 2.5])
def test_max_drop_finds_the_fastest_schedule_within_the_limit(limit: float) -> None:
    world = World()

    solution = solve_max_drop(limit, SPACE, world.drops, world.speedups)

    allowed = [each.point for each in everything(SPACE) if (world.drop(each.point) or 0) <= limit]
    fastest = max(allowed, key=lambda point: world.speedup(point) or 0)
    assert solution.reached and solution.best is not None
    assert solution.best.name == fastest.name
    assert solution.best.r_per_layer == resolved(fastest).merged
    assert solution.best.drop == world.drop(fastest)
    assert solution.best.measured_speedup == world.speedup(fastest)
    assert solution.best.predicted_speedup is not None


PAIRS = replace(VIT_B, cap=all_patches_but_one, pairs=True)


@pytest.mark.parametrize(
    ("merged_loses", "dropped_loses", "share"),
    [
        pytest.param(1.0, 3.0, None, id="merging is better"),
        pytest.param(3.0, 1.0, 1.0, id="dropping is better"),
        pytest.param(2.0, 2.0, 0.5, id="half of both"),
    ],
)
@pytest.mark.parametrize("table", [LINE, STEPS], ids=["a line", "steps"])
def test_pairs_of_merged_and_dropped_are_searched(
    table: LatencyTable, merged_loses: float, dropped_loses: float, share: float | None
) -> None:
    geometries = {"diffrate": PAIRS}
    families = with_drop_shares((Point(method="diffrate"),), geometries)
    space = Space(geometries=geometries, families=families, table=table, largest_r=16)

    def drops(points: Sequence[Point]) -> list[float | None]:
        both = [plan(point.schedule, PAIRS) for point in points]
        # a quarter off where a block does both, in equal parts
        found = []
        for schedule in both:
            merged, dropped = sum(schedule.merged), sum(schedule.dropped)
            alike = min(merged, dropped) / max(merged, dropped)
            found.append((merged_loses * merged + dropped_loses * dropped) / 100 * (1 - 0.25 * alike))
        return list(found)

    def speedups(points: Sequence[Point]) -> list[float | None]:
        dense = table.predict((197,) * 13)
        return [dense / table.predict(plan(point.schedule, PAIRS).tokens) for point in points]

    solution = solve_max_drop(2.0, space, drops, speedups)

    assert solution.reached and solution.best is not None
    merged, dropped = sum(solution.best.r_per_layer), sum(solution.best.drop_per_layer or ())
    asked = share or 0.0
    assert dropped == pytest.approx(asked * (merged + dropped), abs=12)
    same = ScheduleRequest(r_per_layer=solution.best.r_per_layer, drop_per_layer=solution.best.drop_per_layer)
    assert drops([Point(method="diffrate", schedule=same)]) == [solution.best.drop]


def test_max_drop_measures_each_schedule_once_and_few_of_them() -> None:
    world = World()

    solution = solve_max_drop(1.0, SPACE, world.drops, world.speedups)

    assert (
        len(set(world.asked_drops)) == len(world.asked_drops) <= 3 * (5 + 2)
    )  # halving 16 of them, and 2 beyond
    assert len(world.asked_speedups) == 3
    assert {each.name for each in solution.evaluated} == set(world.asked_drops)


def test_max_drop_looks_past_one_schedule_that_noise_made_worse() -> None:
    # constant r loses 0.078 r without noise: 0.47 at 6, 0.39 at 5
    world = World(noise={name(5): 0.2})

    solution = solve_max_drop(0.5, TOME_ONLY, world.drops, world.speedups)

    assert solution.best is not None and solution.best.name == name(6)


def test_max_drop_answer_is_measured_even_where_order_does_not_hold() -> None:
    world = World(noise={name(r): (-0.9 if r % 2 else 0.9) for r in range(1, 17)})

    solution = solve_max_drop(0.5, TOME_ONLY, world.drops, world.speedups)

    assert solution.reached and solution.best is not None
    assert solution.best.drop is not None and solution.best.drop <= 0.5
    assert solution.best.name in world.asked_drops and solution.best.name in world.asked_speedups


def test_max_drop_that_nothing_meets_says_what_came_nearest() -> None:
    world = World(noise={name(r): 3.0 for r in range(1, 17)})

    solution = solve_max_drop(0.5, TOME_ONLY, world.drops, world.speedups)

    assert not solution.reached
    assert solution.best is not None and solution.best.name == name(1)
    assert "none of 5 schedules measured loses at most 0.5 points; best was" in solution.explanation
    assert solution.best.drop is not None and f"{solution.best.drop:.2f} points lost" in solution.explanation
    assert world.asked_speedups == []


def test_max_drop_does_not_offer_a_schedule_that_is_slower_than_dense() -> None:
    world = World(bias=0.4)

    solution = solve_max_drop(0.5, TOME_ONLY, world.drops, world.speedups)

    assert not solution.reached
    assert "is faster than dense" in solution.explanation


def test_max_drop_passes_over_points_that_fail() -> None:
    world = World(broken=tuple(name(r) for r in range(1, 17)))

    solution = solve_max_drop(5, TOME_ONLY, world.drops, world.speedups)

    assert not solution.reached and solution.best is None
    assert "nothing could be measured" in solution.explanation


# At least Y faster ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bias",
    [
        pytest.param(1.0, id="table right"),
        pytest.param(0.9, id="too hopeful"),
        pytest.param(1.1, id="too shy"),
    ],
)
@pytest.mark.parametrize("limit", [1.1, 1.3, 1.5])
def test_min_speedup_finds_the_most_accurate_schedule_that_is_fast_enough(limit: float, bias: float) -> None:
    world = World(bias=bias)

    solution = solve_min_speedup(limit, SPACE, world.drops, world.speedups)

    fast = [each.point for each in everything(SPACE) if (world.speedup(each.point) or 0) >= limit]
    best = min(fast, key=lambda point: world.drop(point) or 0)
    assert solution.reached and solution.best is not None
    assert solution.best.name == best.name
    assert solution.best.measured_speedup == world.speedup(best)
    assert solution.best.drop == world.drop(best)


def test_min_speedup_measures_few_schedules_where_the_table_is_right() -> None:
    world = World()

    solve_min_speedup(1.3, TOME_ONLY, world.drops, world.speedups)

    assert len(world.asked_speedups) <= 2  # the answer, and the one that merges less
    assert len(world.asked_drops) == 1


def test_min_speedup_that_nothing_meets_says_what_came_nearest() -> None:
    world = World()

    solution = solve_min_speedup(9, SPACE, world.drops, world.speedups)

    assert not solution.reached and solution.best is not None
    assert solution.best.measured_speedup == max(world.speedup(each.point) or 0 for each in everything(SPACE))
    assert "9x as fast as dense; best was" in solution.explanation
    assert world.asked_drops == []


def test_min_speedup_without_quality_takes_what_merges_least_and_says_so() -> None:
    world = World()

    solution = solve_min_speedup(1.3, SPACE, lambda points: [None] * len(points), world.speedups)

    fast = [each for each in everything(SPACE) if (world.speedup(each.point) or 0) >= 1.3]
    least = max(fast, key=lambda each: sum(each.schedule.tokens))
    assert solution.best is not None and solution.best.name == least.point.name
    assert "quality was not measured" in solution.explanation


def test_min_speedup_without_a_table_that_covers_anything_says_so() -> None:
    short = replace(LINE, counts=(196, 197), extra_ms=(0.0, 1.0))

    solution = solve_min_speedup(1.3, replace(SPACE, table=short), World().drops, World().speedups)

    assert not solution.reached and "measure engines with fewer tokens" in solution.explanation


# From the engines to the answer ---------------------------------------------------------------------------------------


def tile_engine_ms(tokens: Sequence[int]) -> float:
    """An engine whose blocks work in tiles of 32 tokens, by the definition."""
    blocks = sum(weight * ceil(count / 32) for weight, count in zip(WEIGHTS, tokens, strict=True))
    return 3 + blocks + 0.1 * sum(before > after for before, after in pairwise(tokens))


@pytest.mark.parametrize("limit", [1.2, 1.5])
def test_schedule_out_of_measured_engines_loses_less_than_any_that_ignores_the_steps(limit: float) -> None:
    counts = (32, 33, 64, 65, 96, 97, 128, 129, 160, 161, 192, 193, 197)
    engines = [
        plan(ScheduleRequest(r_per_layer=merged), VIT_B).tokens for merged in table_engines(VIT_B, counts)
    ]
    table = fit(
        [Measurement(tokens=tokens, latency_ms=tile_engine_ms(tokens)) for tokens in engines], counts, WEIGHTS
    )
    dense_ms = tile_engine_ms((197,) * 13)
    world = World()

    def speedups(points: Sequence[Point]) -> list[float | None]:
        return [dense_ms / tile_engine_ms(resolved(point).tokens) for point in points]

    solution = solve_min_speedup(limit, replace(TOME_ONLY, table=table), world.drops, speedups)

    plain = [each.point for each in candidates(replace(TOME_ONLY, table=None), TOME)]
    fast = [point for point, ratio in zip(plain, speedups(plain), strict=True) if (ratio or 0) >= limit]
    assert solution.reached and solution.best is not None and solution.best.drop is not None
    assert (solution.best.measured_speedup or 0) >= limit
    assert solution.best.measured_speedup == pytest.approx(solution.best.predicted_speedup)
    assert solution.best.drop < min(world.drop(point) or 0 for point in fast)


# Where to look -------------------------------------------------------------------------------------------------------


def test_candidates_merge_more_and_more() -> None:
    found = candidates(replace(SPACE, table=None), TOME)

    assert [each.point.schedule.r for each in found] == list(range(1, 17))
    assert [each.schedule.merged[0] for each in found] == list(range(1, 17))
    assert {each.predicted_speedup for each in found} == {None}


def test_candidates_are_lifted_to_the_tops_of_steps() -> None:
    found = candidates(replace(SPACE, table=STEPS, largest_r=8), TOME)

    assert set(found[-1].schedule.tokens) <= {197, 192, 160, 128}
    assert found[-1].point.schedule == ScheduleRequest(r_per_layer=found[-1].schedule.merged)
    plain = plan(ScheduleRequest(r=8), VIT_B).tokens
    assert found[-1].predicted_speedup == pytest.approx(
        STEPS.predict((197,) * 13) / STEPS.predict(plain), rel=0.1
    )


def test_schedule_of_a_family_that_merges_nothing_is_the_dense_point() -> None:
    family = Point(method="pitome", precision="fp16")

    assert family.scheduled(ScheduleRequest(r_per_layer=(0, 0))) == Point(precision="fp16")


def test_candidates_end_where_half_of_all_patches_merge_at_once() -> None:
    found = candidates(replace(SPACE, table=None, largest_r=None), TOME)

    assert max(each.schedule.merged[0] for each in found) == 98


@pytest.mark.parametrize(
    ("space", "message"),
    [
        pytest.param(replace(SPACE, families=()), "no method and schedule", id="no families"),
        pytest.param(
            replace(SPACE, families=(TOME, Point(precision="fp16"))),
            "a latency table is of one engine",
            id="engines",
        ),
    ],
)
def test_space_without_sense_is_refused(space: Space, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        solve_max_drop(1, space, World().drops, World().speedups)


def test_goals_without_sense_are_refused() -> None:
    world = World()

    with pytest.raises(UsageError, match="max-drop >= 0"):
        solve_max_drop(-1, SPACE, world.drops, world.speedups)
    with pytest.raises(UsageError, match="min-speedup above 1"):
        solve_min_speedup(1, SPACE, world.drops, world.speedups)
    with pytest.raises(UsageError, match="needs a latency table"):
        solve_min_speedup(2, replace(SPACE, table=None), world.drops, world.speedups)
