"""Pairs of merged and dropped counts: by a share, and as they were published for one model."""

from dataclasses import replace

import pytest

from exporter.errors import UsageError
from exporter.schedule import PUBLISHED, Geometry, ScheduleRequest, all_patches_but_one, plan

DEIT = Geometry(tokens=197, protected=1, blocks=12, cap=all_patches_but_one, pairs=True)
ASKED = ScheduleRequest(published="deit_s-2.9")


def test_counts_are_those_of_the_table() -> None:
    schedule = plan(ASKED, DEIT)

    assert schedule.dropped == (0, 1, 4, 8, 6, 2, 4, 4, 8, 10, 6, 53)
    assert schedule.merged == (0, 2, 14, 12, 9, 6, 8, 10, 11, 14, 2, 0)
    assert schedule.requested == "published deit_s-2.9"
    assert schedule.notes == ()


@pytest.mark.parametrize(
    ("share", "dropped"), [(0.0, (0, 0, 0)), (0.5, (3, 2, 0)), (0.25, (2, 1, 0)), (1.0, (6, 3, 0))]
)
def test_share_of_what_leaves_is_dropped_in_every_block(share: float, dropped: tuple[int, ...]) -> None:
    geometry = Geometry(tokens=17, protected=1, blocks=3, cap=all_patches_but_one, pairs=True)

    schedule = plan(ScheduleRequest(r=3, kind="decreasing", drop_share=share), geometry)

    assert schedule.dropped == dropped
    assert schedule.tokens == (17, 11, 8, 8)
    assert plan(schedule.lists, geometry).tokens == schedule.tokens
    assert plan(schedule.lists, geometry).dropped == dropped


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_lists_are_as_long_as_the_model_and_leave_a_patch(name: str) -> None:
    found = PUBLISHED[name]
    blocks = {"mae_l": 24, "mae_h": 32}.get(name.split("-")[0], 12)

    assert len(found.dropped) == len(found.merged) == blocks
    assert found.tokens - sum(found.dropped) - sum(found.merged) >= 3


def test_other_number_of_tokens_is_said() -> None:
    (note,) = plan(ASKED, replace(DEIT, tokens=577)).notes

    assert note == "schedule deit_s-2.9 was published for 197 tokens, and this model has 577"


@pytest.mark.parametrize(
    ("request_", "geometry", "words"),
    [
        pytest.param(
            ScheduleRequest(published="deit_s-2.8"),
            DEIT,
            r"^schedule: published: expected one of deit_ti-0.6, .*, got deit_s-2.8\. Did you mean",
            id="unknown name",
        ),
        pytest.param(ASKED, replace(DEIT, blocks=24), "each of the model's 24 blocks, got 12", id="depth"),
        pytest.param(ASKED, replace(DEIT, tokens=65), "block 5 has 9 tokens", id="too few tokens"),
        pytest.param(
            ASKED,
            replace(DEIT, pairs=False),
            "block 1 this method drops 0, got 1",
            id="a method that merges only",
        ),
    ],
)
def test_what_does_not_fit_is_refused(request_: ScheduleRequest, geometry: Geometry, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan(request_, geometry)
