"""Attention written out becomes one node; what only looks like attention stays, with the reason."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.capture import Program, capture
from exporter.graph import PassOutcome
from exporter.graph.nodes import calls, mask_of, scale_of
from exporter.graph.operators import aten, sdpa

TOKENS, HEADS, WIDTH = 9, 2, 4
IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


class Attends(nn.Module):
    """Patches, one attention of the given form, and a mean."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, HEADS * WIDTH, 4, 4)
        self.qkv = nn.Linear(HEADS * WIDTH, 3 * HEADS * WIDTH)
        self.bias = nn.Parameter(torch.randn(HEADS, TOKENS, TOKENS))
        self.attention = attention

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, H*D)."""
        x_BNC = self.patches(images).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x_BNC).reshape(-1, TOKENS, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4).unbind(0)
        return self.attention(q, k, v).transpose(1, 2).flatten(2).mean(dim=1)


def outcome(program: Program, name: str) -> PassOutcome:
    """Return what the pass of that name did."""
    return next(outcome for outcome in program.outcomes if outcome.name == name)


def check_numbers(model: nn.Module, program: Program) -> None:
    torch.testing.assert_close(program.graph_module(IMAGES)[0], model(IMAGES), rtol=0, atol=1e-6)


def attention_of(program: Program) -> fx.Node:
    """Return the graph's only attention node."""
    (node,) = calls(program.graph_module.graph, sdpa)
    return node


def scaled_query(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q * 0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v


def scaled_scores(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (torch.matmul(q, k.transpose(2, 3)) * 0.3).softmax(dim=-1) @ v


def divided_scores(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / math.sqrt(WIDTH)).softmax(-1) @ v


def unscaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(dim=3) @ v


def softmax_in_fp32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.matmul(q, k.transpose(2, 3)) * 0.5
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(nn.functional.dropout(weights, p=0.1, training=False), v)


def scaled_twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) * 3.0 / 4.0).softmax(dim=-1) @ v


def transposed_otherwise(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.permute(0, 1, 3, 2) * 0.5).softmax(dim=-1) @ v


def batched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    flat_q, flat_k, flat_v = (part.reshape(-1, TOKENS, WIDTH) for part in (q, k, v))
    attended = torch.bmm(torch.bmm(flat_q, flat_k.transpose(1, 2)).mul(0.5).softmax(-1), flat_v)
    return attended.reshape(-1, HEADS, TOKENS, WIDTH)


@pytest.mark.parametrize(
    ("attention", "scale"),
    [
        pytest.param(scaled_query, 1.0, id="the query is scaled"),
        pytest.param(scaled_scores, 0.3, id="the scores are scaled"),
        pytest.param(divided_scores, 0.5, id="the scores are divided"),
        pytest.param(unscaled, 1.0, id="nothing is scaled"),
        pytest.param(softmax_in_fp32, 0.5, id="casts and dropout around the softmax"),
        pytest.param(scaled_twice, 0.75, id="two factors"),
        pytest.param(transposed_otherwise, 0.5, id="keys transposed by permute"),
        pytest.param(batched, 0.5, id="heads folded into the batch"),
    ],
)
def test_written_out_attention_becomes_one_node(attention: Attention, scale: float) -> None:
    model = Attends(attention)

    program = capture(model, IMAGES)

    assert outcome(program, "canonicalize_attention").rewrites == 1
    assert outcome(program, "canonicalize_attention").modified
    assert not calls(program.graph_module.graph, aten.softmax.int)
    assert scale_of(attention_of(program)) == pytest.approx(scale)
    assert mask_of(attention_of(program)) is None
    check_numbers(model, program)


class BiasedAttends(Attends):
    """The same with an additive bias that is a parameter of the model."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, H*D)."""
        self.attention = lambda q, k, v: (q @ k.mT * 0.5 + self.bias).softmax(-1) @ v
        return super().forward(images)


def test_additive_bias_becomes_the_mask() -> None:
    model = BiasedAttends(unscaled)

    program = capture(model, IMAGES)

    assert mask_of(attention_of(program)) is not None
    assert scale_of(attention_of(program)) == pytest.approx(0.5)
    check_numbers(model, program)


def bias_then_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    bias = torch.arange(TOKENS * TOKENS, dtype=q.dtype).reshape(TOKENS, TOKENS) / 50
    return ((q @ k.mT + bias) * 0.5).softmax(-1) @ v


def test_bias_before_the_scale_keeps_its_meaning() -> None:
    model = Attends(bias_then_scale)

    check_numbers(model, capture(model, IMAGES))


def over_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).softmax(dim=-2) @ v


def read_twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (q @ k.mT).softmax(dim=-1)
    return weights @ v + weights.mean(dim=-1, keepdim=True)


def renormalised(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q @ k.mT).softmax(dim=-1) * 2) @ v


def not_a_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return v @ torch.matmul(q.mT, k).tanh().softmax(dim=-1)


@pytest.mark.parametrize(
    ("attention", "reason"),
    [
        pytest.param(over_queries, "the softmax is not over the last axis", id="softmax over queries"),
        pytest.param(read_twice, "its probabilities are read in 2 places", id="probabilities read elsewhere"),
        pytest.param(renormalised, "its probabilities go into mul", id="probabilities changed"),
        pytest.param(not_a_product, "its probabilities go into matmul", id="probabilities on the right"),
    ],
)
def test_what_is_no_attention_is_left_alone_and_says_why(attention: Attention, reason: str) -> None:
    model = Attends(attention)

    program = capture(model, IMAGES)

    done = outcome(program, "canonicalize_attention")
    assert not done.modified
    assert len(done.declined) == 1
    assert done.declined[0].startswith("softmax: ")
    assert reason in done.declined[0]
    assert calls(program.graph_module.graph, aten.softmax.int)
    assert not calls(program.graph_module.graph, sdpa)
    check_numbers(model, program)


def fused(mask: Callable[[Tensor], Tensor | None]) -> Attention:
    """Return fused attention with a mask that may be computed from the query's device and type."""
    return lambda q, k, v: nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask(q))


def all_true(q: Tensor) -> Tensor:
    return torch.arange(TOKENS)[None, :] >= torch.zeros(TOKENS, dtype=torch.int64)[:, None]


def all_zero(q: Tensor) -> Tensor:
    return torch.zeros(TOKENS, TOKENS)


def causal(q: Tensor) -> Tensor:
    return torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()


def one_off(q: Tensor) -> Tensor:
    return torch.eye(TOKENS) * 1e-3


def from_the_image(q: Tensor) -> Tensor:
    return torch.zeros(TOKENS, TOKENS) * q.mean()


@pytest.mark.parametrize(
    "mask", [pytest.param(all_true, id="all true"), pytest.param(all_zero, id="all zero")]
)
def test_neutral_constant_mask_is_folded(mask: Callable[[Tensor], Tensor]) -> None:
    model = Attends(fused(mask))

    program = capture(model, IMAGES)

    assert outcome(program, "fold_constant_masks").rewrites == 1
    assert mask_of(attention_of(program)) is None
    check_numbers(model, program)


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(causal, id="false somewhere"),
        pytest.param(one_off, id="not zero somewhere"),
        pytest.param(from_the_image, id="computed from the image"),
    ],
)
def test_mask_that_may_matter_stays(mask: Callable[[Tensor], Tensor]) -> None:
    model = Attends(fused(mask))

    program = capture(model, IMAGES)

    assert not outcome(program, "fold_constant_masks").modified
    assert mask_of(attention_of(program)) is not None
    check_numbers(model, program)


def test_canonical_attention_is_not_touched() -> None:
    model = Attends(nn.functional.scaled_dot_product_attention)

    program = capture(model, IMAGES)

    assert not outcome(program, "canonicalize_attention").modified
    assert not outcome(program, "fold_constant_masks").modified
    assert scale_of(attention_of(program)) == pytest.approx(WIDTH**-0.5)
    check_numbers(model, program)
