"""Which tokens of a value are needed: liveness, but token by token.

In: a graph and its layouts. Out: for every value with a token axis, how many tokens, from the front, are read, or None
for all of them. A class-token head reads one token of the last block's output; its attention still reads every key
and value, so everything before stays whole.
"""

from collections.abc import Mapping

from torch import fx

from exporter.anatomy.layout import Layout, TokenAxis
from exporter.anatomy.token_axis import side_inputs
from exporter.anatomy.token_rules import slice_bounds
from exporter.graph.nodes import integer, is_tensor, mask_of, operand, shape_of
from exporter.graph.operators import aten, sdpa

Demand = dict[fx.Node, int | None]

_ALL = 1 << 62


def token_demand(graph: fx.Graph, layouts: Mapping[fx.Node, Layout]) -> Demand:
    """Tokens read of every value with a token axis, from the front; None where all are.

    A value is only said to need fewer tokens if every operand that has more can be cut down to them, on a plain
    token axis of a tensor (and not of the list that an unbind gives).
    """
    whole: set[fx.Node] = set()
    while True:
        demand = _demand(graph, layouts, whole)
        uncuttable = {node for node in demand if demand[node] < _ALL and not _can_cut(node, demand, layouts)}
        if not uncuttable:
            return {node: None if count >= _ALL else count for node, count in demand.items()}
        whole |= uncuttable


def operands_to_cut(node: fx.Node, demand: Mapping[fx.Node, int | None]) -> list[fx.Node]:
    """The operands that must be cut to `demand[node]` tokens because others need more of them."""
    wanted = demand.get(node)
    if wanted is None:
        return []
    return [source for source in _followed(node) if source in demand and demand[source] != wanted]


def _demand(graph: fx.Graph, layouts: Mapping[fx.Node, Layout], whole: set[fx.Node]) -> dict[fx.Node, int]:
    demand: dict[fx.Node, int] = {}
    for node in reversed(graph.nodes):
        if isinstance(layouts.get(node), TokenAxis):
            read = (_read_by(user, node, layouts, demand) for user in node.users)
            demand[node] = _ALL if node in whole else max(read, default=_ALL)
    return demand


def _read_by(
    user: fx.Node, node: fx.Node, layouts: Mapping[fx.Node, Layout], demand: Mapping[fx.Node, int]
) -> int:
    if user.target is sdpa and node in user.args[1:3]:
        return _ALL
    if isinstance(layouts.get(user), TokenAxis):
        return _ALL if _shifts(user, layouts) else demand[user]
    if layouts.get(user) is None and user.target is aten.select.int:
        return integer(user, 2) + 1
    if layouts.get(user) is None and user.target is aten.slice.Tensor:
        return slice_bounds(user)[2]
    return _ALL


def _shifts(user: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    """Whether token positions shift between the operands and the result, as slices and concatenations do."""
    axes = [layouts.get(node) for node in (user, *user.all_input_nodes)]
    return len({layout.tokens for layout in axes if isinstance(layout, TokenAxis)}) > 1


def _can_cut(node: fx.Node, demand: Mapping[fx.Node, int], layouts: Mapping[fx.Node, Layout]) -> bool:
    mask = mask_of(node) if node.target is sdpa else None
    if side_inputs(node, layouts) or (mask is not None and shape_of(mask)[-2:-1] != (1,)):
        return False
    for source in _followed(node):
        layout = layouts.get(source)
        if not isinstance(layout, TokenAxis) or demand[source] == demand[node]:
            continue
        if not (layout.is_plain and is_tensor(source)):
            return False
    return True


def _followed(node: fx.Node) -> list[fx.Node]:
    """Operands whose tokens become the result's tokens one by one."""
    if node.target is sdpa:
        return [operand(node, 0)]
    return node.all_input_nodes
