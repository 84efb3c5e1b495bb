"""Pass: give the query a projection of its own where only some queries are needed."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, fx

from exporter.anatomy.demand import token_demand
from exporter.anatomy.layout import TokenAxis
from exporter.anatomy.token_axis import trace_tokens
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import add_call, add_parameter, attribute, calls, shape_of
from exporter.graph.operators import aten, sdpa
from exporter.rewrite.channel_rows import ProjectedHeads, projected_heads, read_elsewhere
from exporter.rewrite.context import PassContext
from exporter.rewrite.remove_dead_tokens import RemoveDeadTokens


@dataclass(frozen=True)
class SplitFusedProjection(GraphPass):
    """Separate the query channels of a fused qkv projection from the others.

    Given: `attention(q, k, v)` of which only the first tokens' rows are read, with q, k, v rearranged from one
    `linear(x, W, b)`.
    Result: q from `linear(x, W[rows of q])`, k and v from `linear(x, W[rows of k and v])`; removing dead tokens can
    then cut the former down. Attention whose rows are all read keeps its fused projection, which runs faster.
    """

    name: ClassVar[str] = "split_fused_projection"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None where dead tokens stay."""
        return None if RemoveDeadTokens.name in context.options.disabled else cls()

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Split the projections of all attention nodes with dead queries."""
        layouts = trace_tokens(graph_module.graph)
        demand = token_demand(graph_module.graph, layouts)
        rewrites = 0
        for attention in calls(graph_module.graph, sdpa):
            if demand.get(attention) is not None:
                rewrites += _split(graph_module, attention)
        return PassOutcome(name=self.name, rewrites=rewrites)


def _split(graph_module: fx.GraphModule, attention: fx.Node) -> bool:
    operands = [operand for operand in attention.args[:3] if isinstance(operand, fx.Node)]
    heads = [projected_heads(graph_module, operand) for operand in operands]
    query, key, value = heads
    if query is None or key is None or value is None:
        return False
    if not (query.linear is key.linear is value.linear) or _order(query.linear) is None:
        return False
    if any(
        read_elsewhere(graph_module, part, operand)
        for part, operand in zip(heads, operands, strict=True)
        if part
    ):
        return False
    (new_query,) = _projections(graph_module, attention, [query])
    new_key, new_value = _projections(graph_module, attention, [key, value])
    attention.args = (new_query, new_key, new_value, *attention.args[3:])
    return True


def _order(linear: fx.Node) -> list[int] | None:
    """The permutation from (first, second, H, D) to (B, H, N, D) for the linear's own axes."""
    layout = trace_tokens(linear.graph).get(linear)
    if not isinstance(layout, TokenAxis) or not layout.is_plain or len(shape_of(linear)) != 3:
        return None
    return [1 - layout.axis, 2, layout.axis, 3]


def _projections(
    graph_module: fx.GraphModule, attention: fx.Node, parts: list[ProjectedHeads]
) -> list[fx.Node]:
    """One linear layer for all `parts`, and each part of it as (B, H, N, D)."""
    graph, linear = graph_module.graph, parts[0].linear
    rows = torch.cat([part.rows_HD.flatten() for part in parts])
    parameters = [
        add_parameter(graph_module, attention, f"{parameter.name}_rows", _rows(graph_module, parameter, rows))
        for parameter in linear.args[1:]
        if isinstance(parameter, fx.Node)
    ]
    order = _order(linear)
    assert order is not None
    results, start = [], 0
    with graph.inserting_before(attention):
        projected = add_call(graph, aten.linear.default, linear.args[0], *parameters)
        for part in parts:
            heads, width = part.rows_HD.shape
            stop = start + heads * width
            channels = (
                add_call(graph, aten.slice.Tensor, projected, -1, start, stop)
                if len(parts) > 1
                else projected
            )
            split = add_call(graph, aten.unflatten.int, channels, -1, [heads, width])
            results.append(add_call(graph, aten.permute.default, split, order))
            start = stop
    return results


def _rows(graph_module: fx.GraphModule, parameter: fx.Node, rows: Tensor) -> Tensor:
    return attribute(graph_module, parameter)[rows]
