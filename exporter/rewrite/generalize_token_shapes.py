"""Pass: take the token count out of every literal shape."""

import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from exporter.anatomy.layout import Layout, TokenAxis
from exporter.anatomy.token_axis import trace_tokens
from exporter.anatomy.token_rules import slice_bounds, token_part
from exporter.errors import InternalError
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import (
    add_call,
    axis_of,
    calls,
    example_batch,
    input_nodes,
    integer,
    operand,
    shape_of,
)
from exporter.graph.operators import aten


@dataclass(frozen=True)
class GeneralizeTokenShapes(GraphPass):
    """Let shapes follow the tokens, so that a merge anywhere upstream needs no change downstream.

    Given: `reshape(x, [B, 197, 12, 64])` where axis 1 is found to hold the tokens (by following them, never by the
    number), `expand`, `unflatten`, and slices that end at the last token.
    Result: `reshape(x, [B, -1, 12, 64])`, and slices that end wherever the tokens end.
    """

    name: ClassVar[str] = "generalize_token_shapes"

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Generalise every node whose arguments name the token count."""
        graph, rewrites = graph_module.graph, 0
        layouts = trace_tokens(graph)
        for node in graph.nodes:
            rewrites += generalize(node, layouts)
        return PassOutcome(name=self.name, rewrites=rewrites)

    def ensures(self, graph_module: fx.GraphModule) -> str | None:
        """No literal size stands where a value's tokens are."""
        layouts = trace_tokens(graph_module.graph)
        for node in calls(graph_module.graph, aten.reshape.default):
            layout, sizes = layouts.get(node), node.args[1]
            assert isinstance(sizes, list | tuple)
            if isinstance(layout, TokenAxis) and sizes[layout.axis] != -1:
                return f"{node.name} still names its token count"
        return None


def generalize(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    """Take the token count out of one node's arguments; return whether any named it."""
    generalizer = _GENERALIZERS.get(node.target)
    return generalizer is not None and generalizer(node, layouts)


def _sizes(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    """reshape, expand, unflatten: -1 for the token axis; what stood as -1 in a shape is spelled out."""
    layout, given = layouts.get(node), node.args[-1]
    assert isinstance(given, list | tuple)
    is_part = node.target is aten.unflatten.int
    first = axis_of(integer(node, 1), len(shape_of(operand(node, 0)))) if is_part else 0
    if not isinstance(layout, TokenAxis) or not first <= layout.axis < first + len(given):
        return False
    sizes = list(given)
    if node.target is not aten.expand.default:
        sizes = [_spelled_out(node, first + axis) if size == -1 else size for axis, size in enumerate(given)]
    sizes[layout.axis - first] = -1
    node.args = (*node.args[:-1], sizes)
    return list(given) != sizes


def _spelled_out(node: fx.Node, axis: int) -> Any:
    size = node.meta["val"].shape[axis]
    if isinstance(size, int):
        return size
    graph = node.graph
    with graph.inserting_before(node):
        batch = add_call(graph, aten.sym_size.int, input_nodes(graph)[0], 0)
        factor, rest = divmod(shape_of(node)[axis], example_batch(graph))
        if rest:
            raise InternalError(f"axis {axis} of {node.name} is no multiple of the batch")
        return add_call(graph, operator.mul, batch, factor) if factor != 1 else batch


def _slice(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    source = operand(node, 0)
    layout = layouts.get(source)
    axis, start, end, step = slice_bounds(node)
    if not isinstance(layout, TokenAxis) or layout.axis != axis:
        return False
    open_end = sys.maxsize if end == shape_of(source)[axis] else end
    before = node.args
    node.args = (source, axis, start, open_end, step)
    return before != node.args


def _select(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    source, index = operand(node, 0), integer(node, 2)
    layout, shape = layouts.get(source), shape_of(source)
    axis = axis_of(integer(node, 1), len(shape))
    if not isinstance(layout, TokenAxis) or layout.axis != axis or index >= 0:
        return False
    node.args = (source, axis, index % shape[axis])
    return True


def _part(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    """A part of the tokens: a slice of what was split."""
    split = operand(node, 0)
    layout = layouts.get(split)
    bounds = token_part(node, layout)
    if bounds is None or not isinstance(layout, TokenAxis):
        return False
    start, end = bounds
    node.target = aten.slice.Tensor
    node.args = (operand(split, 0), layout.axis, start, sys.maxsize if end == layout.tokens else end)
    return True


_GENERALIZERS: dict[Any, Callable[[fx.Node, Mapping[fx.Node, Layout]], bool]] = {
    aten.reshape.default: _sizes,
    aten.expand.default: _sizes,
    aten.unflatten.int: _sizes,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    operator.getitem: _part,
}
