"""Tokens that nobody reads are not computed, and the result does not change."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.anatomy import executed_macs
from exporter.capture import capture
from exporter.errors import InternalError
from exporter.graph import run_passes
from exporter.graph.nodes import calls
from exporter.graph.operators import aten
from exporter.rewrite.generalize_token_shapes import GeneralizeTokenShapes
from exporter.rewrite.remove_dead_tokens import RemoveDeadTokens
from exporter.rewrite.remove_no_ops import RemoveNoOps
from exporter.rewrite.split_fused_projection import SplitFusedProjection
from tests.unit.rewrite.small_models import (
    CLASSES,
    HEADS,
    PATCHES,
    WIDTH,
    Attention,
    Block,
    Rewritten,
    SmallVit,
    images,
    random,
    rewritten,
    seeded,
)

FIRST = (RemoveNoOps(), GeneralizeTokenShapes(), SplitFusedProjection())


def trimmed(model: nn.Module) -> Rewritten:
    return rewritten(seeded(model), images(), RemoveDeadTokens(), first=FIRST)


def block_macs(tokens: int, read: int) -> int:
    """Return MACs of one small block that reads `tokens` tokens and computes `read` of them."""
    projections = 2 * tokens * WIDTH**2 + 2 * read * WIDTH**2
    return projections + 2 * read * tokens * WIDTH + 2 * read * WIDTH * (2 * WIDTH)


def model_macs(prefix: int, *reads: int) -> int:
    """Return MACs of a small ViT with a class-token head, given the tokens computed in each block."""
    stem = PATCHES * (3 * 2 * 2) * WIDTH
    return stem + sum(block_macs(prefix + PATCHES, read) for read in reads) + WIDTH * CLASSES


@pytest.mark.parametrize("projection", ["fused", "separate", "torch"])
def test_last_block_computes_the_class_token_only_and_numbers_stay(projection: str) -> None:
    pair = trimmed(SmallVit(Block(projection), Block(projection)))  # type: ignore[arg-type]

    assert pair.outcome.modified
    assert executed_macs(pair.before.graph) == model_macs(1, 17, 17)
    assert executed_macs_traced(pair, images()) == model_macs(1, 17, 1)
    pair.assert_same_signature()
    pair.assert_same_numbers(images(3), atol=1e-6)


def executed_macs_traced(pair: Rewritten, example: Tensor) -> int:
    """Return what the graph performs, from shapes traced anew."""
    return executed_macs(capture(pair.after, example).graph_module.graph)


class TwoHeads(SmallVit):
    """A distilled model: the mean of two heads on the first two tokens."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat((self.prefix.expand(x.shape[0], -1, -1), x), dim=1)
        x = self.norm(self.blocks(x))
        return cast(Tensor, (self.classifier(x[:, 0]) + self.classifier(x[:, 1])) / 2)


def test_distilled_model_keeps_both_of_its_tokens() -> None:
    pair = trimmed(TwoHeads(Block(), prefix=2))

    assert executed_macs_traced(pair, images()) == model_macs(2, 2) + WIDTH * CLASSES
    pair.assert_same_numbers(images(3), atol=1e-6)


def test_registers_that_nobody_reads_are_dead_as_well() -> None:
    pair = trimmed(SmallVit(Block(), prefix=5))

    assert executed_macs_traced(pair, images()) == model_macs(5, 1)
    pair.assert_same_numbers(images(3), atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(SmallVit(Block(), head="mean"), id="mean"),
        pytest.param(SmallVit(Block(), head="patch mean"), id="mean of the patches"),
        pytest.param(SmallVit(Block(), head="both"), id="class token and mean"),
        pytest.param(SmallVit(Block(), head="tokens"), id="all tokens are the output"),
    ],
)
def test_head_that_reads_every_patch_leaves_the_graph_alone(model: nn.Module) -> None:
    trimmed(model).assert_untouched()


class BiasedAttention(Attention):
    """Attention with a table of positions, or a causal mask."""

    def __init__(self, *, tokens: int, causal: bool = False, per_image: bool = False) -> None:
        super().__init__("separate")
        self.table = nn.Parameter(torch.zeros(1, HEADS, tokens, tokens))
        self.causal, self.per_image = causal, per_image

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        if self.causal:
            attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            image = x.mean(dim=(1, 2), keepdim=True).unsqueeze(1) if self.per_image else 0.0
            attended = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=self.table + image * self.table
            )
        return cast(Tensor, self.out(attended.transpose(1, 2).flatten(2)))


def biased(**options: bool) -> nn.Module:
    block = Block()
    block.attention = BiasedAttention(tokens=17, **options)
    return SmallVit(block)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(biased(), id="table of positions"),
        pytest.param(biased(per_image=True), id="bias computed from the image"),
        pytest.param(biased(causal=True), id="causal"),
    ],
)
def test_attention_with_a_bias_keeps_its_numbers(model: nn.Module) -> None:
    pair = trimmed(model)

    pair.assert_same_signature()
    pair.assert_same_numbers(images(3), atol=1e-6)


class TokenTables(nn.Module):
    """A block whose tokens are multiplied by a table with one entry per token before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.attention = nn.Parameter(random(17, WIDTH)), Attention("separate")

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.attention(x) * self.table)


def test_table_with_one_entry_per_token_keeps_its_numbers() -> None:
    pair = trimmed(SmallVit(TokenTables()))

    pair.assert_same_numbers(images(3), atol=1e-6)


def test_literal_token_counts_are_a_missing_requirement() -> None:
    graph_module = capture(seeded(SmallVit(Block())), images()).graph_module
    literals = [node for node in calls(graph_module.graph, aten.reshape.default) if 17 in node.args[1]]  # type: ignore[operator]

    assert literals
    with pytest.raises(
        InternalError, match=r"pass remove_dead_tokens requires: .* still names its token count"
    ):
        run_passes(graph_module, [RemoveDeadTokens()])
