"""Tokens' own positions, and what tables hold there, against plain loops."""

import pytest
import torch

from exporter.reduction.match import Match
from exporter.reduction.positions import entries_at, own_positions, positions_of_kept

POSITIONS_BK = torch.tensor([[0, 4, 2], [0, 1, 3]])


def test_positions_follow_the_tokens_that_stay() -> None:
    first = Match(torch.tensor([[0, 4, 2, 3]]), torch.tensor([[1]]), torch.tensor([[2]]))
    second = Match(torch.tensor([[0, 3, 1]]), torch.tensor([[2]]), torch.tensor([[0]]))

    positions_BK = positions_of_kept(positions_of_kept(None, first), second)

    assert positions_BK.tolist() == [[0, 3, 4]]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(0, [[0, 4, 2], [0, 1, 3]], id="the same tokens"),
        pytest.param(-1, [[3, 1], [0, 2]], id="without the class token"),
        pytest.param(2, [[0, 1, 2, 6, 4], [0, 1, 2, 3, 5]], id="with two more in front"),
    ],
)
def test_positions_are_counted_from_another_first_token(change: int, expected: list[list[int]]) -> None:
    assert own_positions(POSITIONS_BK, change).tolist() == expected


def test_entry_per_token_between_other_axes() -> None:
    table = torch.randn(1, 2, 5, 3)

    found_BHKD = entries_at(table, POSITIONS_BK, (2,), 0, prefix_change=0)

    for image in range(2):
        for place, position in enumerate(POSITIONS_BK[image].tolist()):
            assert torch.equal(found_BHKD[image, :, place], table[0, :, position])


def test_entry_per_token_where_images_come_second() -> None:
    table = torch.randn(5, 1, 3)

    found_KBC = entries_at(table, POSITIONS_BK, (0,), 1, prefix_change=0)

    assert torch.equal(found_KBC, table[:, 0][POSITIONS_BK].transpose(0, 1))


def test_entry_per_pair_of_patches() -> None:
    table = torch.randn(1, 2, 4, 4)

    found_BHKK = entries_at(table, POSITIONS_BK, (2, 3), 0, prefix_change=-1)

    assert found_BHKK.shape == (2, 2, 2, 2)
    for image, patches in enumerate([[3, 1], [0, 2]]):
        for row, first in enumerate(patches):
            for column, second in enumerate(patches):
                assert torch.equal(found_BHKK[image, :, row, column], table[0, :, first, second])
