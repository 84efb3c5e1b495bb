"""Values with one entry per original token, against loops; where tokens go, also in `validation/test_block_error`."""

import pytest
import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.unmerge import follow, restore

WHERE_BT = torch.tensor([[0, 1, 3, 2, 2], [0, 2, 1, 1, 3]])


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        pytest.param((2, 4, 3), 1, id="tokens"),
        pytest.param((4, 2, 3), 0, id="tokens first"),
        pytest.param((2, 3, 4), 2, id="tokens last"),
        pytest.param((2, 5, 4, 3), 2, id="heads"),
    ],
)
@pytest.mark.parametrize("change", [-1, 0, 2])
def test_every_token_gets_the_row_of_where_it_is(shape: tuple[int, ...], axis: int, change: int) -> None:
    """A value with fewer or more prefix tokens has all positions moved; added ones stay in front."""
    sizes = list(shape)
    sizes[axis] += change
    values = torch.randn(sizes)

    whole = restore(values, WHERE_BT, axis=axis, prefix_change=change)

    sizes[axis] = 5 + change
    assert list(whole.shape) == sizes
    for image in range(2):
        for token, place in enumerate(places(image, change)):
            assert torch.equal(entry(whole, axis, image, token), entry(values, axis, image, place))


def places(image: int, change: int) -> list[int]:
    moved = [place + change for place in WHERE_BT[image].tolist()]
    return [*range(change), *moved] if change > 0 else moved[-change:]


def entry(values: Tensor, axis: int, image: int, token: int) -> Tensor:
    return values[token, image] if axis == 0 else values[image].select(axis - 1, token)


def test_a_second_reduction_goes_on_from_the_first() -> None:
    """Tokens 0 to 4: 4 merges into 1, so that 0, 1, 2, 3 are left; then the third of these merges into the first."""
    first = Match(torch.tensor([[0, 1, 2, 3]]), torch.tensor([[4]]), torch.tensor([[1]]))
    second = Match(torch.tensor([[0, 1, 3]]), torch.tensor([[2]]), torch.tensor([[0]]))

    where = follow(follow(None, first), second)

    assert where.tolist() == [[0, 1, 0, 2, 1]]
