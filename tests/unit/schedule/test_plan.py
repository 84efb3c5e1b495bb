"""From a request to counts: the cap, explicit lists, alignment, and what is said about them."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import UsageError
from exporter.schedule import (
    Geometry,
    ScheduleKind,
    ScheduleRequest,
    all_dropped,
    all_patches_but_one,
    keep_of_current,
    keep_of_initial,
    plan,
)

VIT_B = Geometry(tokens=197, protected=1, blocks=12)
VIT_L = Geometry(tokens=197, protected=1, blocks=24)
VIT_H14 = Geometry(tokens=257, protected=1, blocks=32)
FOUR = Geometry(tokens=17, protected=1, blocks=4)

GEOMETRIES = st.builds(
    Geometry, tokens=st.integers(8, 600), protected=st.integers(0, 5), blocks=st.integers(2, 32)
)
KINDS = st.sampled_from(["constant", "decreasing", "increasing"])


def most(tokens: int, geometry: Geometry) -> int:
    """Return how many of `tokens` may merge in one block, by the definition."""
    return (tokens - geometry.protected) // 2


# Spread over the blocks ----------------------------------------------------------------------------------------------


def test_constant_r_within_the_cap_is_met_in_every_block() -> None:
    schedule = plan(ScheduleRequest(r=8), VIT_B)

    assert schedule.merged == (8,) * 12
    assert schedule.tokens == (197, 189, 181, 173, 165, 157, 149, 141, 133, 125, 117, 109, 101)
    assert schedule.notes == ()
    assert schedule.requested == "constant r=8"
    assert not schedule.is_dense


@pytest.mark.parametrize(
    ("geometry", "r", "final"),
    [
        pytest.param(VIT_B, 16, 11, id="ViT-B r=16"),
        pytest.param(VIT_L, 8, 7, id="ViT-L r=8"),
        pytest.param(VIT_H14, 8, 5, id="ViT-H/14 r=8"),
    ],
)
def test_constant_r_hits_the_cap_late_and_says_so_in_one_line(geometry: Geometry, r: int, final: int) -> None:
    schedule = plan(ScheduleRequest(r=r), geometry)

    assert schedule.tokens[-1] == final
    (note,) = schedule.notes
    assert "capped" in note
    assert "\n" not in note


def test_cap_note_names_the_block_and_both_totals() -> None:
    # 17 tokens, 1 protected, r = 6: 17 -> 11 -> (5 of 6) 6 -> (2) 4 -> (1) 3
    schedule = plan(ScheduleRequest(r=6), FOUR)

    assert schedule.merged == (6, 5, 2, 1)
    (note,) = schedule.notes
    assert "from block 1 on 8 tokens are removed where 18 were asked" in note
    assert note.endswith("(6,5,2,1)")


def test_paper_s_decreasing_schedule_fits_vit_b_uncapped() -> None:
    schedule = plan(ScheduleRequest(r=16, kind="decreasing"), VIT_B)

    assert schedule.merged == (32, 29, 26, 23, 20, 17, 14, 11, 8, 5, 2, 0)
    assert schedule.tokens[-1] == 197 - 187
    assert schedule.notes == ()


def test_r_0_is_dense() -> None:
    schedule = plan(ScheduleRequest(r=0), VIT_B)

    assert schedule.is_dense
    assert schedule.merged == (0,) * 12
    assert schedule.tokens == (197,) * 13


def test_model_of_protected_tokens_only_merges_nothing() -> None:
    schedule = plan(ScheduleRequest(r=4), Geometry(tokens=5, protected=5, blocks=2))

    assert schedule.is_dense
    assert len(schedule.notes) == 1


@given(geometry=GEOMETRIES, r=st.integers(0, 64), kind=KINDS)
def test_spread_counts_never_pass_the_cap_and_differ_from_it_only_with_a_note(
    geometry: Geometry, r: int, kind: ScheduleKind
) -> None:
    schedule = plan(ScheduleRequest(r=r, kind=kind), geometry)

    assert schedule.tokens[0] == geometry.tokens
    assert len(schedule.merged) == geometry.blocks
    assert [before - after for before, after in pairwise(schedule.tokens)] == list(schedule.merged)
    assert all(
        0 <= merged <= most(tokens, geometry)
        for merged, tokens in zip(schedule.merged, schedule.tokens[:-1], strict=True)
    )
    capped = any(
        merged == most(tokens, geometry) and (r or merged)
        for merged, tokens in zip(schedule.merged, schedule.tokens[:-1], strict=True)
    )
    assert capped or not schedule.notes


def test_negative_r_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"^schedule: expected r >= 0, got -1") as raised:
        plan(ScheduleRequest(r=-1), VIT_B)

    assert "\n" not in str(raised.value)


# Explicit merges -----------------------------------------------------------------------------------------------------


def test_explicit_merges_are_taken_as_they_are() -> None:
    schedule = plan(ScheduleRequest(r_per_layer=(8, 0, 4, 2)), FOUR)

    assert schedule.merged == (8, 0, 4, 2)
    assert schedule.tokens == (17, 9, 9, 5, 3)
    assert schedule.notes == ()
    assert schedule.requested == "r-per-layer 8,0,4,2"


@pytest.mark.parametrize(
    ("merged", "message"),
    [
        pytest.param((4, 4, 4), "each of the model's 4 blocks, got 3", id="too short"),
        pytest.param((1,) * 5, "each of the model's 4 blocks, got 5", id="too long"),
        pytest.param((), "each of the model's 4 blocks, got 0", id="empty"),
        pytest.param(
            (9, 0, 0, 0), r"block 0 has 17 tokens \(1 protected\) and can remove 0 to 8, got 9", id="first"
        ),
        pytest.param(
            (8, 4, 3, 0), r"block 2 has 5 tokens \(1 protected\) and can remove 0 to 2, got 3", id="later"
        ),
        pytest.param((4, -1, 0, 0), "block 1 has 13 tokens .* can remove 0 to 6, got -1", id="negative"),
    ],
)
def test_explicit_merges_that_cannot_be_met_are_refused_in_one_line(
    merged: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        plan(ScheduleRequest(r_per_layer=merged), FOUR)

    assert "\n" not in str(raised.value)


# Explicit survivors --------------------------------------------------------------------------------------------------


def test_survivors_in_tokens_become_differences() -> None:
    schedule = plan(ScheduleRequest(keep_per_layer=(12, 12, 10, 6)), FOUR)

    assert schedule.merged == (5, 0, 2, 4)
    assert schedule.tokens == (17, 12, 12, 10, 6)
    assert schedule.requested == "keep-per-layer 12,12,10,6"


def test_survivors_in_fractions_are_rounded_in_favour_of_keeping() -> None:
    # floor(17 * .1) = 1, floor(16 * .25) = 4, 0, floor(12 * .5) = 6 > (12 - 1) // 2 would be refused
    schedule = plan(ScheduleRequest(keep_per_layer=(0.9, 0.75, 1.0, 0.6)), FOUR)

    assert schedule.merged == (1, 4, 0, 4)
    assert schedule.tokens == (17, 16, 12, 12, 8)


@given(tokens=st.integers(8, 1000), percent=st.integers(51, 100))
def test_fraction_merges_the_floor_of_exact_arithmetic(tokens: int, percent: int) -> None:
    exact = int(tokens * (1 - Fraction(percent, 100)))

    schedule = plan(
        ScheduleRequest(keep_per_layer=(percent / 100,)), Geometry(tokens=tokens, protected=0, blocks=1)
    )

    assert schedule.merged == (exact,)


@pytest.mark.parametrize(
    "keeps",
    [
        pytest.param((17, 17, 17), id="wrong length"),
        pytest.param((18, 17, 17, 17), id="more than there are"),
        pytest.param((8, 8, 8, 8), id="more than half at once"),
        pytest.param((0, 0, 0, 0), id="none"),
        pytest.param((-1, 0, 0, 0), id="negative"),
        pytest.param((0.9, 0.9), id="fractions of wrong length"),
        pytest.param((1.1, 1.0, 1.0, 1.0), id="fraction above 1"),
        pytest.param((0.4, 1.0, 1.0, 1.0), id="fraction below half"),
        pytest.param((0.0, 1.0, 1.0, 1.0), id="fraction 0"),
    ],
)
def test_survivors_that_cannot_be_met_are_refused_in_one_line(
    keeps: tuple[int, ...] | tuple[float, ...],
) -> None:
    with pytest.raises(UsageError, match=r"^schedule: ") as raised:
        plan(ScheduleRequest(keep_per_layer=keeps), FOUR)

    assert "\n" not in str(raised.value)


# Alignment -----------------------------------------------------------------------------------------------------------


def test_first_merge_of_197_tokens_goes_to_192_and_all_later_counts_are_multiples_of_8() -> None:
    schedule = plan(ScheduleRequest(r=8, align=8), VIT_B)

    assert schedule.merged == (5, *(8,) * 11)
    assert schedule.tokens == (197, 192, 184, 176, 168, 160, 152, 144, 136, 128, 120, 112, 104)
    assert schedule.requested == "constant r=8 aligned to 8"


def test_aligned_dense_schedule_stays_dense() -> None:
    assert plan(ScheduleRequest(r=0, align=8), VIT_B).is_dense


def test_alignment_to_1_changes_nothing() -> None:
    assert plan(ScheduleRequest(r=13, align=1), VIT_B).merged == plan(ScheduleRequest(r=13), VIT_B).merged


@pytest.mark.parametrize("align", [pytest.param(0, id="zero"), pytest.param(-8, id="negative")])
def test_alignment_below_1_is_refused_in_one_line(align: int) -> None:
    with pytest.raises(UsageError, match=rf"^schedule: expected --align >= 1, got {align}$"):
        plan(ScheduleRequest(r=8, align=align), VIT_B)


def test_alignment_that_no_count_can_reach_is_visible() -> None:
    # No multiple of 256 lies between 99 and 197: nothing would merge although r = 8 was asked.
    schedule = plan(ScheduleRequest(r=8, align=256), VIT_B)

    assert schedule.is_dense
    assert schedule.notes


@given(geometry=GEOMETRIES, r=st.integers(0, 64), kind=KINDS, align=st.sampled_from([2, 4, 8, 16, 32, 64]))
def test_aligned_counts_are_multiples_after_every_merge_within_the_cap(
    geometry: Geometry, r: int, kind: ScheduleKind, align: int
) -> None:
    schedule = plan(ScheduleRequest(r=r, kind=kind, align=align), geometry)

    assert len(schedule.tokens) == geometry.blocks + 1
    for merged, before, after in zip(schedule.merged, schedule.tokens, schedule.tokens[1:], strict=False):
        assert after == before - merged
        assert 0 <= merged <= most(before, geometry)
        assert merged == 0 or after % align == 0


@given(geometry=GEOMETRIES, r=st.integers(0, 64), kind=KINDS, align=st.sampled_from([2, 4, 8, 16]))
def test_aligned_counts_stay_within_one_step_of_what_was_asked(
    geometry: Geometry, r: int, kind: ScheduleKind, align: int
) -> None:
    asked = plan(ScheduleRequest(r=r, kind=kind), geometry)

    schedule = plan(ScheduleRequest(r=r, kind=kind, align=align), geometry)

    for wanted, got in zip(asked.tokens, schedule.tokens, strict=True):
        assert got >= wanted - align


# Keep rates, and lists of dropped tokens ------------------------------------------------------------------------------

FREE = replace(VIT_B, cap=all_patches_but_one)


@pytest.mark.parametrize(
    ("keep", "patches"),
    [
        pytest.param(keep_of_initial, (196, 137, 96, 67), id="DynamicViT: int(196 * 0.7 ** (stage + 1))"),
        pytest.param(keep_of_current, (196, 138, 97, 68), id="EViT: 0.7 of what enters, rounded up"),
    ],
)
def test_keep_rate_by_hand(keep: Callable[..., int], patches: tuple[int, ...]) -> None:
    schedule = plan(ScheduleRequest(keep_rate=0.7, at=(3, 6, 9)), replace(FREE, keep=keep))

    assert tuple(schedule.tokens[block] - 1 for block in (0, 4, 7, 10)) == patches
    assert [block for block, r in enumerate(schedule.removed) if r] == [3, 6, 9]
    assert schedule.tokens == plan(ScheduleRequest(keep_rate=0.7), replace(FREE, keep=keep)).tokens


def test_keep_rate_is_for_the_quarters_of_the_depth_unless_it_is_said() -> None:
    schedule = plan(ScheduleRequest(keep_rate=0.9), replace(VIT_H14, cap=all_patches_but_one))

    assert [block for block, r in enumerate(schedule.removed) if r] == [8, 16, 24]
    assert schedule.requested == "keep-rate 0.9"


@pytest.mark.parametrize(
    ("rate", "patches", "kept"), [(0.7, 10, 7), (0.1, 30, 3), (0.55, 20, 11), (1.0, 9, 9), (0.001, 9, 1)]
)
def test_a_rate_times_a_count_is_exact(rate: float, patches: int, kept: int) -> None:
    assert keep_of_current(rate, 0, patches, patches) == kept


def test_slots_that_are_still_to_be_counted_are_all_but_one() -> None:
    schedule = plan(ScheduleRequest(slots_for=99.5, at=(3, 6)), FREE)

    assert schedule.removed == (0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0)
    assert schedule.requested == "slots-for 99.5 at 3,6"
    assert len(schedule.notes) == 1


@pytest.mark.parametrize("places", [(3, 12), (6, 3), (3, 3)])
def test_blocks_that_there_are_not_are_refused(places: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="ascending block indices from 0 to 11, got"):
        plan(ScheduleRequest(keep_rate=0.7, at=places), FREE)


def test_a_method_that_merges_only_refuses_a_list_of_dropped_tokens() -> None:
    with pytest.raises(UsageError, match=r"of the 5 tokens that leave block 1 this method drops 0, got 2"):
        plan(ScheduleRequest(r_per_layer=(3, 3, 0, 0), drop_per_layer=(0, 2, 0, 0)), FOUR)


def test_both_lists_together_are_what_leaves() -> None:
    pairs = replace(FOUR, pairs=True)
    schedule = plan(ScheduleRequest(r_per_layer=(3, 3, 0, 0), drop_per_layer=(0, 2, 0, 1)), pairs)

    assert (schedule.merged, schedule.dropped) == ((3, 3, 0, 0), (0, 2, 0, 1))
    assert schedule.tokens == (17, 14, 9, 9, 8)
    assert schedule.requested == "r-per-layer 3,3,0,0 drop-per-layer 0,2,0,1"


def test_a_method_that_drops_takes_either_list() -> None:
    drops = replace(FOUR, dropped=all_dropped)
    counts = (3, 0, 2, 0)

    assert plan(ScheduleRequest(r_per_layer=counts), drops).dropped == counts
    assert plan(ScheduleRequest(drop_per_layer=counts), drops).dropped == counts


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(
        UsageError, match="one entry per block in both lists, got 4 of tokens that merge and 3"
    ):
        plan(ScheduleRequest(r_per_layer=(0,) * 4, drop_per_layer=(0,) * 3), FOUR)
