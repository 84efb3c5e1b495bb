"""The patch embedding as a product of matrices."""

import pytest
from torch import Tensor, nn

from exporter.graph.nodes import calls
from exporter.graph.operators import Trait, aten, operators
from exporter.rewrite.project_patches import ProjectPatches
from tests.unit.rewrite.small_models import random, rewritten, seeded


class Stem(nn.Module):
    """A convolution, then one row for every patch."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 10, **options)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        rows: Tensor = self.convolution(images).flatten(2).transpose(1, 2)
        return rows


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        pytest.param({"kernel_size": 4, "stride": 4}, (8, 12), id="square"),
        pytest.param({"kernel_size": (4, 3), "stride": (4, 3)}, (8, 12), id="two sides"),
        pytest.param({"kernel_size": 4, "stride": 4, "bias": False}, (8, 8), id="no bias"),
        pytest.param({"kernel_size": 8, "stride": 8}, (8, 8), id="one patch"),
    ],
)
def test_patches_become_a_product(options: dict[str, object], shape: tuple[int, int]) -> None:
    pair = rewritten(seeded(Stem(**options)), random(2, 3, *shape), ProjectPatches())

    assert pair.outcome.rewrites == 1
    assert not calls(pair.after.graph, aten.conv2d.default)
    pair.assert_same_signature()
    pair.assert_same_numbers(random(3, 3, *shape, seed=5), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"kernel_size": 4, "stride": 2}, id="overlap"),
        pytest.param({"kernel_size": 4, "stride": 4, "padding": 2}, id="padding"),
        pytest.param({"kernel_size": 4, "stride": 4, "dilation": 1, "padding": "valid"}, id="by name"),
        pytest.param({"kernel_size": 3, "stride": 3}, id="remainder"),
        pytest.param({"kernel_size": 2, "stride": 3, "dilation": 2}, id="dilation"),
    ],
)
def test_other_convolutions_are_left_alone(options: dict[str, object]) -> None:
    pair = rewritten(seeded(Stem(**options)), random(2, 3, 8, 8), ProjectPatches())

    assert pair.outcome.rewrites == 0
    assert "no patches side by side" in pair.outcome.declined[0]
    assert len(calls(pair.after.graph, *operators(Trait.CONVOLUTION))) == 1
