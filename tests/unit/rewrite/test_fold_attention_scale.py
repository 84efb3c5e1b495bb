"""The attention scale goes into the query projection, however the library spells it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.graph import GraphPass
from exporter.graph.nodes import calls, scale_of
from exporter.graph.operators import sdpa
from exporter.rewrite.fold_attention_scale import FoldAttentionScale
from tests.unit.rewrite.small_models import (
    HEADS,
    WIDTH,
    Attention,
    Block,
    Rewritten,
    random,
    rewritten,
    seeded,
)

TOKENS = 5


def folded(model: nn.Module, *first: GraphPass, atol: float) -> Rewritten:
    """Return a model over (2, 5, C) before and after; fail unless signature and numbers stay."""
    pair = rewritten(seeded(model), random(2, TOKENS, WIDTH), FoldAttentionScale(), first=first)
    pair.assert_same_signature()
    pair.assert_same_numbers(random(3, TOKENS, WIDTH, seed=5), atol=atol)
    return pair


@pytest.mark.parametrize("bias", [pytest.param(True, id="bias"), pytest.param(False, id="no bias")])
@pytest.mark.parametrize(
    "projection",
    [
        pytest.param("fused", id="fused qkv"),
        pytest.param("separate", id="separate q"),
        pytest.param("torch", id="nn.MultiheadAttention"),
    ],
)
def test_scale_is_folded_and_numbers_stay(projection: str, bias: bool) -> None:
    pair = folded(Attention(projection, bias=bias), atol=1e-6)  # type: ignore[arg-type]

    assert (pair.outcome.rewrites, pair.outcome.declined) == (1, ())
    (attention,) = calls(pair.after.graph, sdpa)
    assert attention.kwargs["scale"] == 1.0


def test_every_block_is_folded() -> None:
    pair = folded(nn.Sequential(Block(), Block("separate")), atol=1e-5)

    assert pair.outcome.rewrites == 2


def test_second_run_finds_nothing_to_do() -> None:
    pair = folded(Attention("fused"), FoldAttentionScale(), atol=1e-6)

    pair.assert_untouched()
    assert pair.outcome.declined == ()


def test_normalised_queries_decline_with_a_reason() -> None:
    pair = folded(Attention("fused", norm=True), atol=1e-6)

    (reason,) = pair.outcome.declined
    assert "not a bare projection" in reason
    pair.assert_untouched()


class QueriesReturned(Attention):
    """The queries are an output as well."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        q, k, v = self.heads(x)
        return functional.scaled_dot_product_attention(q, k, v), q


class QueriesAreKeys(nn.Module):
    """One projection serves as queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.qk = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q = self.qk(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        return functional.scaled_dot_product_attention(q, q, q)


class ProjectionSummed(Attention):
    """The whole projection is read by a residual."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        residual: Tensor = self.q(x)
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) + residual


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(QueriesReturned("fused"), id="returned"),
        pytest.param(QueriesAreKeys(), id="are the keys"),
    ],
)
def test_queries_that_are_read_elsewhere_decline_with_a_reason(model: nn.Module) -> None:
    pair = folded(model, atol=1e-6)

    (reason,) = pair.outcome.declined
    assert "read elsewhere" in reason
    pair.assert_untouched()


def test_another_call_of_the_same_projection_keeps_its_weight() -> None:
    assert folded(ProjectionSummed("separate"), atol=1e-6).outcome.modified


class OwnScale(Attention):
    """An explicit scale."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return functional.scaled_dot_product_attention(q, k, v, scale=0.3)


def test_explicit_scale_is_folded_as_it_is() -> None:
    pair = folded(OwnScale("fused"), atol=1e-6)

    (attention,) = calls(pair.before.graph, sdpa)
    assert scale_of(attention) == 0.3
    assert pair.outcome.rewrites == 1


class AttentionPool(nn.Module):
    """Cross attention through nn.MultiheadAttention, which cuts its fused weight in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.ones(1, 3, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.attention(self.probe.expand(x.shape[0], -1, -1), x, x, need_weights=False)[0]
        return pooled


class ComputedWeight(nn.Module):
    """A projection whose weight is the sum of two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.update = nn.Parameter(random(WIDTH, WIDTH)), nn.Parameter(random(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q = functional.linear(x, self.base + self.update).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        k = x.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        return functional.scaled_dot_product_attention(q, k, k)


@pytest.mark.parametrize(
    "model", [pytest.param(AttentionPool(), id="attention pooling"), pytest.param(ComputedWeight(), id="sum")]
)
def test_computed_weight_declines_and_keeps_the_numbers(model: nn.Module) -> None:
    assert folded(model, atol=1e-6).outcome.declined
