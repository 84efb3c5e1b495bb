"""Pass: give the query a projection of its own where only some queries are needed."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import fx

from exporter.anatomy.demand import token_demand
from exporter.anatomy.layout import TokenAxis
from exporter.anatomy.token_axis import trace_tokens
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import add_call, add_parameter, attribute, calls, operand, shape_of
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
    operands = [operand(attention, position) for position in range(3)]
    query, key, value = (projected_heads(graph_module, each) for each in operands)
    if query is None or key is None or value is None or not query.linear is key.linear is value.linear:
        return False
    order = _order(query.linear)
    parts = zip((query, key, value), operands, strict=True)
    if order is None or any(read_elsewhere(graph_module, part, each) for part, each in parts):
        return False
    queries = _projections(graph_module, attention, [query], order)
    others = _projections(graph_module, attention, [key, value], order)
    attention.args = (*queries, *others, *attention.args[3:])
    return True


def _order(linear: fx.Node) -> list[int] | None:
    """The permutation from (first, second, H, D) to (B, H, N, D) for the linear's own axes."""
    layout = trace_tokens(linear.graph).get(linear)
    if not isinstance(layout, TokenAxis) or not layout.is_plain or len(shape_of(linear)) != 3:
        return None
    return [1 - layout.axis, 2, layout.axis, 3]


def _projections(
    graph_module: fx.GraphModule, attention: fx.Node, parts: list[ProjectedHeads], order: list[int]
) -> list[fx.Node]:
    """One linear layer for all `parts`, and each part of it as (B, H, N, D)."""
    graph, linear = graph_module.graph, parts[0].linear
    rows = torch.cat([part.rows_HD.flatten() for part in parts])
    parameters = [
        add_parameter(graph_module, attention, f"{each.name}_rows", attribute(graph_module, each)[rows])
        for each in linear.args[1:]
        if isinstance(each, fx.Node)
    ]
    results, start = [], 0
    with graph.inserting_before(attention):
        projected = add_call(graph, aten.linear.default, linear.args[0], *parameters)
        for part in parts:
            stop = start + part.rows_HD.numel()
            whole = len(parts) == 1
            channels = projected if whole else add_call(graph, aten.slice.Tensor, projected, -1, start, stop)
            split = add_call(graph, aten.unflatten.int, channels, -1, list(part.rows_HD.shape))
            results.append(add_call(graph, aten.permute.default, split, order))
            start = stop
    return results
