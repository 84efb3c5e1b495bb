"""LayerScale goes into the projection before it."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.graph.nodes import calls
from exporter.graph.operators import aten
from exporter.rewrite.fold_layer_scale import FoldLayerScale
from tests.unit.rewrite.small_models import Rewritten, random, rewritten, seeded

WIDTH = 6


def folded(model: nn.Module, tokens: int = 4) -> Rewritten:
    """Return a model over (2, N, C) before and after; fail unless signature and numbers stay."""
    pair = rewritten(seeded(model), random(2, tokens, WIDTH), FoldLayerScale())
    pair.assert_same_signature()
    pair.assert_same_numbers(random(3, tokens, WIDTH, seed=5), atol=1e-6)
    return pair


class Scaled(nn.Module):
    """x + g * linear(x), in several spellings."""

    def __init__(
        self, *, shape: tuple[int, ...] = (WIDTH,), bias: bool = True, factor_first: bool = False
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH, bias=bias)
        self.gamma = nn.Parameter(torch.ones(shape))
        self.factor_first = factor_first

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.linear(x)
        return x + (self.gamma * projected if self.factor_first else projected * self.gamma)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Scaled(), id="plain"),
        pytest.param(Scaled(bias=False), id="no bias"),
        pytest.param(Scaled(factor_first=True), id="factor first"),
        pytest.param(Scaled(shape=(1, 1, WIDTH)), id="factor (1, 1, C)"),
        pytest.param(nn.Sequential(Scaled(), Scaled()), id="two of them"),
    ],
)
def test_every_layer_scale_is_folded_and_numbers_stay(model: nn.Module) -> None:
    pair = folded(model)

    assert pair.outcome.rewrites == len(calls(pair.before.graph, aten.mul.Tensor))
    assert pair.outcome.modified
    assert pair.outcome.declined == ()
    assert not calls(pair.after.graph, aten.mul.Tensor)


class UnscaledReadAsWell(Scaled):
    """The projection's result is read with and without the scale."""

    def forward(self, x: Tensor) -> Tensor:
        projected = self.linear(x)
        return cast(Tensor, projected + projected * self.gamma)


class UnscaledReturned(Scaled):
    """The projection's result is an output as well."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        projected = self.linear(x)
        return projected, projected * self.gamma


@pytest.mark.parametrize(
    "model", [pytest.param(UnscaledReadAsWell(), id="added"), pytest.param(UnscaledReturned(), id="returned")]
)
def test_projection_that_is_read_without_the_scale_declines_with_a_reason(model: nn.Module) -> None:
    pair = folded(model)

    (reason,) = pair.outcome.declined
    assert "read without the scale" in reason
    pair.assert_untouched()


class Shared(Scaled):
    """One projection, used twice, scaled once."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(self.linear(x) * self.gamma))


def test_weight_that_another_call_uses_keeps_its_value_there() -> None:
    assert folded(Shared()).outcome.rewrites == 1


class PerToken(Scaled):
    """A factor per token as well as per channel."""

    def __init__(self) -> None:
        super().__init__(shape=(4, WIDTH))


class PerTokenOfOneChannel(nn.Module):
    """A factor per token, whose count of entries equals the channels'."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.gamma = nn.Parameter(torch.ones(WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(x) * self.gamma)


class GatedByTheImage(nn.Module):
    """A factor that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gate = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(x) * self.gate(x))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(PerToken(), id="factor per token"),
        pytest.param(PerTokenOfOneChannel(), id="factor per token, as many as channels"),
        pytest.param(GatedByTheImage(), id="gate"),
        pytest.param(nn.Linear(WIDTH, WIDTH), id="no scale"),
    ],
)
def test_what_is_no_layer_scale_is_left_alone(model: nn.Module) -> None:
    folded(model, WIDTH if isinstance(model, PerTokenOfOneChannel) else 4).assert_untouched()


class ComputedWeight(nn.Module):
    """A projection whose weight is the sum of two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.update = nn.Parameter(random(WIDTH, WIDTH)), nn.Parameter(random(WIDTH, WIDTH))
        self.gamma = nn.Parameter(random(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.base + self.update) * self.gamma


def test_computed_weight_declines_and_keeps_the_numbers() -> None:
    assert folded(ComputedWeight()).outcome.declined
