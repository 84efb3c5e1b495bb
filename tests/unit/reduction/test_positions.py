"""Tokens' own positions, and what tables hold there, against plain loops."""

import math
from typing import Any

import pytest
import torch

from exporter.reduction.match import Match
from exporter.reduction.positions import (
    SHORTEST,
    entries_at,
    own_positions,
    positions_of_kept,
    rotations_at,
    shares_of_kept,
)

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

    found_BHKD = entries_at(table, POSITIONS_BK, token_axes=(2,), image_axis=0, prefix_change=0)

    for image in range(2):
        for place, position in enumerate(POSITIONS_BK[image].tolist()):
            assert torch.equal(found_BHKD[image, :, place], table[0, :, position])


def test_entry_per_token_where_images_come_second() -> None:
    table = torch.randn(5, 1, 3)

    found_KBC = entries_at(table, POSITIONS_BK, token_axes=(0,), image_axis=1, prefix_change=0)

    assert torch.equal(found_KBC, table[:, 0][POSITIONS_BK].transpose(0, 1))


def test_entry_per_pair_of_patches() -> None:
    table = torch.randn(1, 2, 4, 4)

    found_BHKK = entries_at(table, POSITIONS_BK, token_axes=(2, 3), image_axis=0, prefix_change=-1)

    assert found_BHKK.shape == (2, 2, 2, 2)
    for image, patches in enumerate([[3, 1], [0, 2]]):
        for row, first in enumerate(patches):
            for column, second in enumerate(patches):
                assert torch.equal(found_BHKK[image, :, row, column], table[0, :, first, second])


def test_shares_count_every_original_once() -> None:
    first = Match(torch.tensor([[0, 2, 3]]), torch.tensor([[1]]), torch.tensor([[1]]))
    second = Match(torch.tensor([[0, 1]]), torch.tensor([[2]]), torch.tensor([[1]]))
    sizes_BN1 = torch.ones(1, 4, 1)

    shares_BKT = shares_of_kept(None, sizes_BN1, first, absent=False)
    shares_BKT = shares_of_kept(shares_BKT, torch.tensor([[[1.0], [2.0], [1.0]]]), second, absent=False)

    torch.testing.assert_close(shares_BKT, torch.tensor([[[1.0, 0, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3]]]))


@pytest.mark.parametrize(
    ("angles", "shares", "mean"),
    [
        pytest.param((0.2, 0.6), (0.5, 0.5), 0.4, id="two of equal size"),
        pytest.param((math.pi - 0.1, 0.1 - math.pi), (0.5, 0.5), math.pi, id="on both sides of a half turn"),
        pytest.param((0.3, 0.3), (0.75, 0.25), 0.3, id="two of equal angle"),
    ],
)
def test_rotation_is_that_of_the_mean_angle(
    angles: tuple[float, float], shares: tuple[float, float], mean: float
) -> None:
    table_1TX = torch.tensor(angles).reshape(1, 2, 1)

    sine, cosine = rotations_at(
        table_1TX.sin(),
        table_1TX.cos(),
        torch.tensor([[shares]]),
        token_axes=(1,),
        image_axis=0,
        prefix_change=0,
    )

    found = torch.stack((sine.flatten(), cosine.flatten()))
    torch.testing.assert_close(found, torch.tensor([[math.sin(mean)], [math.cos(mean)]]))


def test_opposite_angles_leave_no_rotation_of_rounding_errors() -> None:
    table_1TX = torch.tensor([0.7, 0.7 + math.pi]).reshape(1, 2, 1)

    both = rotations_at(
        table_1TX.sin(),
        table_1TX.cos(),
        torch.full((1, 1, 2), 0.5),
        token_axes=(1,),
        image_axis=0,
        prefix_change=0,
    )

    assert max(float(each.abs().max()) for each in both) < 1e-6 / SHORTEST


@pytest.mark.parametrize("change", [0, -1, 2])
def test_rotation_of_tokens_that_nothing_merged_into_is_that_of_their_position(change: int) -> None:
    angles_1TX = torch.rand(1, 5 + change, 3)
    where: dict[str, Any] = {"token_axes": (1,), "image_axis": 0, "prefix_change": change}
    shares_BKT = torch.eye(5)[POSITIONS_BK]

    sine, cosine = rotations_at(angles_1TX.sin(), angles_1TX.cos(), shares_BKT, **where)

    torch.testing.assert_close(sine, entries_at(angles_1TX.sin(), POSITIONS_BK, **where))
    torch.testing.assert_close(cosine, entries_at(angles_1TX.cos(), POSITIONS_BK, **where))
