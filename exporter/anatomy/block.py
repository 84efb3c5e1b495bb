"""One attention block of a captured graph, and the values at which its tokens can be reduced."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from exporter.anatomy.layout import Layout, TokenAxis
from exporter.graph.nodes import example_batch, operand, shape_of
from exporter.schedule import Grid


@dataclass(frozen=True, kw_only=True)
class Block:
    """One attention block.

    Attributes:
        start: the value that the block begins with; None where no single value carries the whole image there.
        attention: the `scaled_dot_product_attention` node over the block's own tokens.
        merge_point: the value after which everything flows through the merged tokens.
        heads: attention heads.
        channels: width of the merge point's value.
        end: the value that the block ends with; None where no single value carries the whole image there.
        tail_macs: multiply-accumulates per token, and per pair of tokens, between the merge point and the end.
        tokens_read: how many tokens of the merge point's value, from the front, anything reads; None for all.
        grid: whose cells the tokens are, where they merge around the attention. Then `start` is the residual stream
            before it, `merge_point` what the attention reads, `end` what it adds to the stream, and the tail all
            between these two. None elsewhere.
    """

    start: fx.Node | None
    attention: fx.Node
    merge_point: fx.Node
    heads: int
    channels: int
    end: fx.Node | None
    tail_macs: tuple[int, int]
    tokens_read: int | None
    grid: Grid | None = None


def is_stream(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    """Whether a value is (B, N, C) or (N, B, C), with nothing but tokens on its token axis."""
    layout = layouts.get(node)
    return isinstance(layout, TokenAxis) and layout.is_plain and len(shape_of(node)) == 3 and layout.axis < 2


def heads_of(site: fx.Node) -> int:
    """Heads of an attention over (B, H, N, D) or (B * H, N, D)."""
    shape, batch = shape_of(operand(site, 0)), example_batch(site.graph)
    return shape[1] if len(shape) == 4 else shape[0] // batch
