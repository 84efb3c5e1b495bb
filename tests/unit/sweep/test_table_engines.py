"""The engines of a latency table reach their counts, and lifting costs nothing."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exporter.errors import UsageError
from exporter.schedule import Geometry, Schedule, ScheduleRequest, plan
from exporter.sweep import LatencyTable, lift, table_counts, table_engines

VIT_B = Geometry(tokens=197, protected=1, blocks=12)
SMALL = Geometry(tokens=40, protected=2, blocks=5)


def tokens_of(merged: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    return plan(ScheduleRequest(r_per_layer=merged), geometry).tokens


def test_engine_merges_at_once_and_stays() -> None:
    engines = table_engines(VIT_B, (150, 120))

    assert engines[:3] == ((0,) * 12, (47, *[0] * 11), (77, *[0] * 11))


def test_engine_below_the_cap_stops_at_measured_counts_on_its_way() -> None:
    # half of 196 is 98, so that 99 is the least after one block; 104 is measured
    assert tokens_of(table_engines(VIT_B, (104, 60))[2], VIT_B)[:4] == (197, 104, 60, 60)
    assert tokens_of(table_engines(VIT_B, (60,))[1], VIT_B)[:4] == (197, 99, 60, 60)


def test_last_engines_merge_in_every_block_and_end_on_their_count() -> None:
    *_, middle, smallest = table_engines(VIT_B, (160, 128, 64))

    assert tokens_of(middle, VIT_B) == (197, *range(139, 127, -1))
    assert tokens_of(smallest, VIT_B) == (197, 128, *range(74, 63, -1))


@given(st.sets(st.integers(12, 40), max_size=6))
def test_every_count_is_where_some_engine_stays(counts: set[int]) -> None:
    ends = {tokens_of(merged, SMALL)[-1] for merged in table_engines(SMALL, sorted(counts))}

    assert counts | {40} == ends


def test_engine_at_the_very_bottom_needs_every_block_and_stops_nowhere() -> None:
    four = Geometry(tokens=17, protected=1, blocks=4)

    assert table_engines(four, (15, 2))[2] == (8, 4, 2, 1)


def test_count_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(UsageError, match="3 tokens cannot be reached from 40"):
        table_engines(SMALL, (3,))


@pytest.mark.parametrize(
    ("geometry", "number", "lowest"),
    [
        pytest.param(VIT_B, 8, 24, id="ViT-B: an eighth"),
        pytest.param(
            Geometry(tokens=17, protected=1, blocks=4), 6, 5, id="digits: 17, 9, 5 in two of four blocks"
        ),
    ],
)
def test_default_counts_start_dense_and_can_be_reached(geometry: Geometry, number: int, lowest: int) -> None:
    counts = table_counts(geometry, number)

    assert counts[0] == geometry.tokens and counts[-1] == lowest
    assert list(counts) == sorted(set(counts), reverse=True)
    assert len(counts) == number
    assert table_engines(geometry, counts)


# Lifting -------------------------------------------------------------------------------------------------------------


def table(tops: list[int], geometry: Geometry, merge_ms: float = 0.1) -> LatencyTable:
    """Steps that end at these counts."""
    counts = tuple(range(geometry.protected, geometry.tokens + 1))
    return LatencyTable(
        counts=counts,
        extra_ms=tuple(float(sum(top < count for top in tops)) for count in counts),
        base_ms=5,
        merge_ms=merge_ms,
        weights=(0.5, *[1.0] * geometry.blocks),
    )


def test_vit_b_with_r_8_is_lifted_to_multiples_of_a_tile_of_32() -> None:
    steps = table([32, 64, 96, 128, 160, 192], VIT_B)

    lifted = lift(plan(ScheduleRequest(r=8), VIT_B), steps, VIT_B)

    assert lifted.tokens == (197, 192, 192, 192, 192, 160, 160, 160, 160, 128, 128, 128, 128)


def test_count_is_lifted_no_higher_than_the_next_merge_can_make_up_for() -> None:
    # 40 -> 21 -> 12: were 21 lifted to its top 30, one block could not merge down to 14, the top of 12
    steps = table([14, 30], SMALL)
    schedule = plan(ScheduleRequest(r_per_layer=(19, 9, 0, 0, 0)), SMALL)

    assert lift(schedule, steps, SMALL).tokens == (40, 26, 14, 14, 14, 14)


def test_block_that_did_not_merge_does_not_after_lifting() -> None:
    # the third count goes to 26 at most (see above); the second one could reach 30, but then a block more would merge
    steps = table([14, 30], SMALL)
    schedule = plan(ScheduleRequest(r_per_layer=(18, 0, 9, 0, 0)), SMALL)

    assert lift(schedule, steps, SMALL).tokens == (40, 26, 26, 14, 14, 14)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    merged, tokens = [], SMALL.tokens
    for _ in range(SMALL.blocks):
        merged.append(draw(st.integers(0, (tokens - SMALL.protected) // 2)))
        tokens -= merged[-1]
    return plan(ScheduleRequest(r_per_layer=tuple(merged)), SMALL)


@given(schedule=schedules(), tops=st.lists(st.integers(2, 40), max_size=12))
def test_lifting_lowers_no_count_and_costs_nothing(schedule: Schedule, tops: list[int]) -> None:
    steps = table(tops, SMALL)

    lifted = lift(schedule, steps, SMALL)

    assert all(after >= before for before, after in zip(schedule.tokens, lifted.tokens, strict=True))
    assert steps.predict(lifted.tokens) <= steps.predict(schedule.tokens) + 1e-12
    assert lifted.tokens[0] == SMALL.tokens
    assert all(before >= after for before, after in pairwise(lifted.tokens))


@given(schedule=schedules(), tops=st.lists(st.integers(2, 40), max_size=12))
def test_where_every_block_may_merge_freely_lifting_reaches_every_top(
    schedule: Schedule, tops: list[int]
) -> None:
    steps = table(tops, SMALL)
    wanted = [40, *(steps.plateau_top(count) for count in schedule.tokens[1:])]
    assume(all(after - 2 >= (before - 2) / 2 for before, after in pairwise(wanted)))

    assert list(lift(schedule, steps, SMALL).tokens) == wanted
