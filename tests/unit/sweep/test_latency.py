"""The latency table: known step functions come back, and what cannot be known is refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import UsageError
from exporter.schedule import Geometry, ScheduleRequest, Workload, plan
from exporter.sweep import LatencyTable, Measurement, fit, segment_weights, table_engines

VIT_B = Geometry(tokens=197, protected=1, blocks=12)
WEIGHTS = (1 / 3, *[1.0] * 11, 2 / 3)
BOTH_SIDES = (33, 64, 65, 96, 97, 128, 129, 160, 161, 192, 193, 197)  # of every step of a tile of 32


def tile_ms(count: float) -> float:
    """A kernel that works in tiles of 32 tokens."""
    return 0.5 * ceil(count / 32)


def line_ms(count: float) -> float:
    return 0.25 + 0.02 * count


def engine_ms(tokens: Sequence[int], block_ms: Callable[[float], float]) -> float:
    """An engine by the definition: 3 ms fixed, blocks, and 0.125 ms for each block that merges."""
    blocks = sum(weight * block_ms(count) for weight, count in zip(WEIGHTS, tokens, strict=True))
    return 3 + blocks + 0.125 * sum(before > after for before, after in pairwise(tokens))


def tokens_of(merged: tuple[int, ...]) -> tuple[int, ...]:
    return plan(ScheduleRequest(r_per_layer=merged), VIT_B).tokens


def measured(
    counts: Sequence[int], block_ms: Callable[[float], float], noise: float = 0
) -> list[Measurement]:
    random = np.random.default_rng(0)
    engines = [tokens_of(merged) for merged in table_engines(VIT_B, counts)]
    return [
        Measurement(tokens=tokens, latency_ms=engine_ms(tokens, block_ms) * (1 + noise * random.normal()))
        for tokens in engines
    ]


@pytest.mark.parametrize(
    ("counts", "block_ms"),
    [
        pytest.param(BOTH_SIDES, tile_ms, id="steps"),
        pytest.param((40, 64, 96, 128, 160, 197), line_ms, id="line"),
        pytest.param((40, 197), line_ms, id="two counts"),
    ],
)
def test_known_block_times_come_back(counts: tuple[int, ...], block_ms: Callable[[float], float]) -> None:
    table = fit(measured(counts, block_ms), counts, WEIGHTS)

    expected = [block_ms(count) - block_ms(counts[0]) for count in counts]
    assert table.counts == counts
    assert table.extra_ms == pytest.approx(expected, abs=1e-9)
    assert table.merge_ms == pytest.approx(0.125, abs=1e-9)
    assert table.base_ms == pytest.approx(3 + sum(WEIGHTS) * block_ms(counts[0]), abs=1e-9)
    assert table.residual_ms == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "request_",
    [ScheduleRequest(r=8), ScheduleRequest(r=8, kind="decreasing"), ScheduleRequest(r=3, align=8)],
    ids=str,
)
def test_engines_that_were_not_measured_are_predicted(request_: ScheduleRequest) -> None:
    every_count = range(33, 198)
    tokens = plan(request_, VIT_B).tokens
    steps = LatencyTable(
        counts=tuple(every_count),
        extra_ms=tuple(tile_ms(count) - tile_ms(33) for count in every_count),
        base_ms=3 + sum(WEIGHTS) * tile_ms(33),
        merge_ms=0.125,
        weights=WEIGHTS,
    )

    assert steps.predict(tokens) == pytest.approx(engine_ms(tokens, tile_ms))
    assert fit(measured(BOTH_SIDES, tile_ms), BOTH_SIDES, WEIGHTS).predict(tokens) == pytest.approx(
        engine_ms(tokens, tile_ms)
    )


def test_steps_come_back_out_of_noise() -> None:
    table = fit(measured(BOTH_SIDES, tile_ms, noise=0.003), BOTH_SIDES, WEIGHTS, step_tolerance=0.05)

    assert [table.plateau_top(count) for count in BOTH_SIDES] == [
        64, 64, 96, 96, 128, 128, 160, 160, 192, 192, 197, 197
    ]  # fmt: skip
    expected = [tile_ms(count) - tile_ms(33) for count in BOTH_SIDES]
    assert table.extra_ms == pytest.approx(expected, abs=0.1)
    assert table.residual_ms < 0.2


@given(noise=st.floats(0, 0.3), tolerance=st.floats(0, 0.2))
def test_block_times_never_fall_and_are_never_negative(noise: float, tolerance: float) -> None:
    counts = (40, 96, 128, 197)
    table = fit(measured(counts, tile_ms, noise), counts, WEIGHTS, tolerance)

    assert all(before <= after for before, after in pairwise(table.extra_ms))
    assert min(table.base_ms, table.merge_ms, table.extra_ms[0]) >= 0


def test_uncertain_measurement_weighs_little() -> None:
    counts = (40, 96, 197)
    sure = measured(counts, line_ms)
    wild = Measurement(tokens=sure[0].tokens, latency_ms=100.0, error_ms=1e4)

    table = fit([*sure, wild], counts, WEIGHTS)

    assert table.predict(sure[0].tokens) == pytest.approx(sure[0].latency_ms, rel=1e-3)
    assert table.residual_ms == pytest.approx(100 - sure[0].latency_ms, rel=1e-3)


def test_merge_that_nobody_reads_costs_nothing() -> None:
    table = LatencyTable(counts=(9, 17), extra_ms=(0, 1), base_ms=1, merge_ms=0.5, weights=(1, 1, 0))

    assert table.predict((17, 17, 9)) == table.predict((17, 17, 17))
    assert table.predict((17, 9, 9)) == pytest.approx(1 + 1 + 0.5)


def test_count_that_nobody_reads_may_lie_outside_of_what_was_measured() -> None:
    table = LatencyTable(counts=(9, 17), extra_ms=(0, 1), base_ms=1, merge_ms=0, weights=(1, 1, 0))

    assert table.covers((17, 9, 5)) and table.predict((17, 9, 5)) == 2
    assert not table.covers((17, 8, 5))


def test_time_of_a_block_shares_out_what_all_engines_have() -> None:
    table = LatencyTable(counts=(9, 17), extra_ms=(0, 1), base_ms=6, merge_ms=0, weights=(1, 1, 1))

    assert [table.block_ms(count) for count in (9, 13, 17)] == [2, 2.5, 3]


@pytest.mark.parametrize(
    ("count", "top"),
    [
        pytest.param(9, 13, id="on a step"),
        pytest.param(11, 13, id="within a step"),
        pytest.param(13, 13, id="top"),
        pytest.param(15, 15, id="between steps"),
        pytest.param(17, 17, id="last"),
    ],
)
def test_plateau_top_is_the_largest_count_that_takes_no_longer(count: int, top: int) -> None:
    table = LatencyTable(counts=(9, 13, 17), extra_ms=(0, 0, 1), base_ms=1, merge_ms=0, weights=(1,))

    assert table.plateau_top(count) == top


def test_weights_are_the_share_of_a_block_in_each_segment() -> None:
    # ViT with width C: attention 4 C^2 and MLP 8 C^2 per token; the last MLP is read of one token only
    workload = Workload(fixed=5, per_token=(4, 12, 12, 0), per_pair=(2, 2, 2, 0))

    assert segment_weights(workload) == (4 / 12, 1, 1, 0)


FOUR = (40, 96, 128, 197)
RUNGS = measured(FOUR, line_ms)


@pytest.mark.parametrize(
    ("engines", "counts", "weights", "message"),
    [
        pytest.param(RUNGS[:3], FOUR, WEIGHTS, "cannot tell 4 token counts", id="too few"),
        pytest.param(
            RUNGS, (40, 128, 150), WEIGHTS, "has 197 to 197 tokens, expected 40 to 150", id="outside"
        ),
        pytest.param(RUNGS, FOUR, (1.0, 1.0), "expected 2 token counts", id="weights of another model"),
        pytest.param(
            [replace(RUNGS[0], latency_ms=0.0)], FOUR, WEIGHTS, "expected positive times", id="no time"
        ),
    ],
)
def test_measurements_that_say_too_little_are_refused(
    engines: list[Measurement], counts: tuple[int, ...], weights: tuple[float, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        fit(engines, counts, weights)


def test_prediction_beyond_what_was_measured_is_refused() -> None:
    table = LatencyTable(counts=(9, 17), extra_ms=(0, 1), base_ms=1, merge_ms=0, weights=(1, 1))

    with pytest.raises(UsageError, match="from 9 to 17, which were measured, got 8 to 17"):
        table.predict((17, 8))
