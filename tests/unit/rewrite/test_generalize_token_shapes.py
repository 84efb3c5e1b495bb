"""No literal token count survives: a graph over fewer tokens runs, whatever axes the tokens are folded into."""

import operator
from typing import cast

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.anatomy import TokenAxis
from exporter.anatomy.token_axis import trace_tokens
from exporter.capture import capture
from exporter.graph import copy_graph
from exporter.graph.nodes import calls
from exporter.graph.operators import aten
from exporter.rewrite.generalize_token_shapes import GeneralizeTokenShapes
from tests.support.families import family
from tests.unit.rewrite.small_models import WIDTH, Block, SmallVit, images, random, rewritten, seeded

TOKENS = 17


class FoldedAxes(nn.Module):
    """Tokens folded with the batch into one axis of B * N, as older libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        rows = self.linear(x.reshape(batch * tokens, channels))
        return cast(Tensor, x + rows.view(batch, tokens, channels))


class FoldedHeads(nn.Module):
    """(N, B, C) and (N, B * H, D), as nn.MultiheadAttention does."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        heads = x.transpose(0, 1).contiguous().view(tokens, batch * 2, channels // 2).transpose(0, 1)
        return x + heads.transpose(0, 1).contiguous().view(tokens, batch, channels).transpose(0, 1)


class Spellings(nn.Module):
    """Flatten, unflatten, expand, slices and negative selections along the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        folded = x.flatten(0, 1).unflatten(0, (x.shape[0], -1))
        gate = x.mean(dim=2, keepdim=True).expand(-1, x.shape[1], WIDTH)
        return cast(Tensor, folded + gate + x[:, : x.shape[1]])


MODELS = [
    pytest.param(SmallVit(Block("fused"), Block("separate")), id="fused and separate"),
    pytest.param(SmallVit(Block("torch")), id="nn.MultiheadAttention"),
    pytest.param(SmallVit(FoldedAxes()), id="(B * N, C)"),
    pytest.param(SmallVit(FoldedHeads()), id="(N, B * H, D)"),
    pytest.param(SmallVit(Spellings(), Spellings()), id="other spellings"),
    pytest.param(SmallVit(Block(), head="patch mean"), id="mean of the patches"),
]


def without_last_tokens(graph_module: fx.GraphModule, gone: int) -> fx.GraphModule:
    """Return a copy in which the last tokens vanish right after the tokens are complete."""
    shorter = copy_graph(graph_module)
    graph = shorter.graph
    (start,) = (node for node in calls(graph, aten.cat.default))
    with graph.inserting_after(start):
        cut = graph.call_function(aten.slice.Tensor, (start, 1, 0, TOKENS - gone))
    start.replace_all_uses_with(cut, delete_user_cb=lambda user: user is not cut)
    graph.lint()
    shorter.recompile()
    return shorter


class Shorter(nn.Module):
    """A small ViT without its last patches."""

    def __init__(self, vit: nn.Module, gone: int) -> None:
        super().__init__()
        assert isinstance(vit, SmallVit)
        self.vit, self.gone = vit, gone

    def forward(self, images: Tensor) -> Tensor:
        vit = self.vit
        x = vit.patch(images).flatten(2).transpose(1, 2) + vit.positions
        x = torch.cat((vit.prefix.expand(x.shape[0], -1, -1), x), dim=1)[:, : TOKENS - self.gone]
        x = vit.norm(vit.blocks(x))
        read = x[:, 0] if vit.head_kind == "class" else x[:, vit.prefix.shape[1] :].mean(dim=1)
        return cast(Tensor, vit.classifier(read))


@pytest.mark.parametrize("model", MODELS)
def test_numbers_and_signature_stay(model: nn.Module) -> None:
    pair = rewritten(seeded(model), images(), GeneralizeTokenShapes())

    assert pair.outcome.modified
    assert GeneralizeTokenShapes().ensures(pair.after) is None
    pair.assert_same_signature()
    pair.assert_same_numbers(images(3), atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("gone", [1, 7])
def test_graph_serves_fewer_tokens(model: nn.Module, gone: int) -> None:
    model = seeded(model)
    pair = rewritten(model, images(), GeneralizeTokenShapes())

    (found,) = without_last_tokens(pair.after, gone)(images(3))

    torch.testing.assert_close(found, Shorter(model, gone)(images(3)), atol=1e-6, rtol=0.0)


def test_graph_as_captured_does_not_serve_fewer_tokens() -> None:
    captured = capture(seeded(SmallVit(Block())), images()).graph_module

    with pytest.raises(RuntimeError):
        without_last_tokens(captured, 1)(images())
    assert GeneralizeTokenShapes().ensures(captured) is not None


def test_second_run_changes_nothing() -> None:
    pair = rewritten(
        seeded(SmallVit(Block("torch"))), images(), GeneralizeTokenShapes(), first=(GeneralizeTokenShapes(),)
    )

    pair.assert_untouched()


def test_graph_without_tokens_is_left_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Unflatten(1, (2, 2)))

    rewritten(seeded(model), random(2, 3, 4), GeneralizeTokenShapes()).assert_untouched()


class SameNumberElsewhere(nn.Module):
    """An axis of channels that happens to be as long as there are tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.back = nn.Linear(WIDTH, 2 * TOKENS), nn.Linear(2 * TOKENS, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        pairs = self.widen(x).view(x.shape[0], x.shape[1], 2, TOKENS).transpose(2, 3)
        return cast(Tensor, x + self.back(pairs.reshape(x.shape[0], x.shape[1], 2 * TOKENS)))


def test_axis_that_is_as_long_by_chance_keeps_its_literal() -> None:
    model = seeded(SmallVit(SameNumberElsewhere()))
    pair = rewritten(model, images(), GeneralizeTokenShapes())

    (found,) = without_last_tokens(pair.after, 3)(images())

    torch.testing.assert_close(found, Shorter(model, 3)(images()), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize(
    "name", ["timm_dinov2_registers", "timm_siglip", "torchvision_vit", "open_clip_vit", "hf_clip"]
)
def test_no_literal_token_count_survives_in_a_model_of_a_library(name: str) -> None:
    example = family(name).images()
    pair = rewritten(family(name).model(), example, GeneralizeTokenShapes())

    layouts = trace_tokens(pair.after.graph)
    for node in calls(pair.after.graph, aten.reshape.default, aten.expand.default):
        layout = layouts.get(node)
        assert not isinstance(layout, TokenAxis) or node.args[1][layout.axis] == -1  # type: ignore[index]
    pair.assert_same_signature()
    pair.assert_same_numbers(example, atol=1e-5)


def test_batch_folded_with_a_factor_is_spelled_by_the_batch() -> None:
    pair = rewritten(seeded(SmallVit(FoldedHeads())), images(), GeneralizeTokenShapes())

    assert calls(pair.after.graph, operator.mul) or calls(pair.after.graph, aten.sym_size.int)
