"""How many reductions lie before each value, and where the tokens of all depths, or all original ones, are needed.

In: a graph, its layouts, and where tokens leave. Out: `Depths`. Whoever reads a value with fewer tokens than there were
reads it at its depth; a node that needs one entry per original token, or joins values of different depths, reads whole
values: each token is looked up where it has gone (`reduction.unmerge`), and what follows runs on all of them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from exporter.anatomy.layout import Layout, TokenAxis
from exporter.anatomy.token_axis import token_inputs
from exporter.graph.nodes import example_batch, input_nodes, shape_of

WHOLE = -1
"""The depth of a value that was reduced and has one entry per original token again."""


@dataclass(frozen=True, kw_only=True)
class Depths:
    """Reductions before each value with a token axis.

    Attributes:
        values: by value, as its readers see it: after a reduction that takes place there.
        reads: by node with operands that have tokens, their common depth; `WHOLE` where they are, or must be, whole.
        restoring: by node that needs values whole of which tokens have left, these values.
    """

    values: Mapping[fx.Node, int]
    reads: Mapping[fx.Node, int]
    restoring: Mapping[fx.Node, Sequence[fx.Node]]


def token_depths(
    graph: fx.Graph,
    layouts: Mapping[fx.Node, Layout],
    points: Sequence[fx.Node],
    obstructed: Collection[fx.Node],
) -> Depths:
    """Count reductions along the graph.

    Args:
        graph: captured, with the tokens of all depths still in it.
        layouts: of the graph.
        points: after which tokens leave, in order.
        obstructed: nodes that need one entry per original token.
    """
    after = {point: depth for depth, point in enumerate(points, start=1)}
    values: dict[fx.Node, int] = {}
    reads: dict[fx.Node, int] = {}
    restoring: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        sources = token_inputs(node, layouts)
        found = {values[source] for source in sources}
        if found:
            joins = len({max(depth, 0) for depth in found}) > 1
            if max(found) > 0 and (joins or node in obstructed):
                restoring[node] = [source for source in sources if values[source] > 0]
                found = {WHOLE}
            reads[node] = min(found)
        if isinstance(layouts.get(node), TokenAxis):
            values[node] = after.get(node, reads.get(node, 0))
    return Depths(values=values, reads=reads, restoring=restoring)


def leading_to(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """These nodes, and all that they are computed from."""
    found: set[fx.Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(node.all_input_nodes)
    return found


def is_restorable(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    """Whether the tokens of a value lie alone on an axis, and the batch on the first or, after them, the second."""
    layout, shape = layouts.get(node), node.meta["val"].shape
    if not isinstance(layout, TokenAxis) or not layout.is_plain or (layout.axis == 0 and len(shape) != 3):
        return False
    place = 1 if layout.axis == 0 else 0
    batch = input_nodes(node.graph)[0].meta["val"].shape[0]
    return type(shape[place]) is type(batch) and shape_of(node)[place] == example_batch(node.graph)
