"""ToMe's rule for spreading r over blocks, against the lists that were published."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.schedule import spread


@pytest.mark.parametrize(
    ("r", "inflect", "merged"),
    [
        pytest.param(16, -1.0, (32, 29, 26, 23, 20, 17, 14, 11, 8, 5, 2, 0), id="(16,-1)"),
        pytest.param(8, -1.0, (16, 14, 13, 11, 10, 8, 7, 5, 4, 2, 1, 0), id="(8,-1)"),
        # max = 2r, step = 2r / 11, rounded down
        pytest.param(16, 1.0, (0, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32), id="(16,+1)"),
        pytest.param(8, 1.0, (0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16), id="(8,+1)"),
        pytest.param(13, 0.0, (13,) * 12, id="(13,0)"),
        # min = int(8 * 1.5) = 12, max = 4, step = -8 / 11
        pytest.param(8, -0.5, (12, 11, 10, 9, 9, 8, 7, 6, 6, 5, 4, 4), id="(8,-0.5)"),
    ],
)
def test_twelve_blocks_get_the_published_counts(r: int, inflect: float, merged: tuple[int, ...]) -> None:
    assert spread(r, inflect, 12) == merged


def test_paper_s_decreasing_schedule_merges_187_tokens_of_vit_b() -> None:
    assert sum(spread(16, -1.0, 12)) == 187


def test_single_block_gets_the_first_count_of_the_line() -> None:
    assert spread(8, 0.0, 1) == (8,)


@given(r=st.integers(0, 128), inflect=st.sampled_from([-1.0, 0.0, 1.0]), blocks=st.integers(2, 48))
def test_counts_follow_a_line_whose_mean_is_r(r: int, inflect: float, blocks: int) -> None:
    merged = spread(r, inflect, blocks)

    assert len(merged) == blocks
    assert all((right - left) * inflect >= 0 for left, right in pairwise(merged))
    assert r * blocks - blocks < sum(merged) <= r * blocks


@given(r=st.integers(0, 128), inflect=st.sampled_from([-1.0, 1.0]), blocks=st.integers(2, 48))
def test_line_ends_at_0_and_at_2r(r: int, inflect: float, blocks: int) -> None:
    merged = spread(r, inflect, blocks)

    assert {merged[0], merged[-1]} == {0, 2 * r}
