"""Counts of tokens that merge around each attention: every site by its own grid."""

import pytest

from exporter.errors import UsageError
from exporter.schedule import Geometry, Grid, ScheduleRequest, plan

GRIDS = (
    Grid(rows=8, columns=8, downsampling=1),
    Grid(rows=4, columns=4, downsampling=2),
    Grid(rows=2, columns=5, downsampling=1),
)


def cap(grid: Grid) -> int:
    return grid.tokens - grid.tokens // 4 if grid.downsampling == 1 else 0


GEOMETRY = Geometry(tokens=64, protected=0, blocks=3, grids=GRIDS, grid_cap=cap)


def test_a_ratio_is_a_share_of_each_site_that_is_large_enough() -> None:
    schedule = plan(ScheduleRequest(ratio=0.7), GEOMETRY)

    assert schedule.merged == (44, 0, 7)
    assert schedule.tokens == (64, 16, 10, 10)
    assert schedule.removed == schedule.merged
    assert schedule.left == (20, 16, 3)
    assert schedule.segments == (20, 16, 3, 10)
    assert schedule.dense_segments == schedule.tokens
    assert schedule.requested == "ratio 0.7"
    assert schedule.notes == ()


def test_a_ratio_that_no_site_can_give_is_capped_and_says_so() -> None:
    schedule = plan(ScheduleRequest(ratio=0.9), GEOMETRY)

    assert schedule.merged == (48, 0, 8)
    assert schedule.notes == (
        "schedule capped: at 2 of 3 attentions fewer tokens merge than --ratio 0.9 asks for, the most that the method "
        "allows",
    )


def test_a_list_is_taken_as_it_is() -> None:
    assert plan(ScheduleRequest(r_per_layer=(1, 0, 8)), GEOMETRY).merged == (1, 0, 8)
    assert plan(ScheduleRequest(), GEOMETRY).is_dense


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        pytest.param(
            ScheduleRequest(r_per_layer=(1, 1, 1)),
            "attention 1 has 16 tokens and can merge 0 to 0",
            id="list",
        ),
        pytest.param(ScheduleRequest(keep_rate=0.5), "takes --ratio", id="another form"),
        pytest.param(
            ScheduleRequest(r_per_layer=(1, 0, 1), drop_per_layer=(0, 0, 1)), "takes --ratio", id="dropping"
        ),
    ],
)
def test_what_no_site_can_do_is_refused(request_: ScheduleRequest, words: str) -> None:
    with pytest.raises(UsageError, match=f"^schedule: .*{words}"):
        plan(request_, GEOMETRY)
