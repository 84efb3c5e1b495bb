"""Values with one entry per original token, against loops. Where tokens go: `validation/test_block_error`."""

import pytest
import torch
from torch import Tensor

from exporter.reduction.unmerge import restore

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
