"""Where tokens can be merged: the values through which everything about the image has to pass.

In: a captured graph. Out: its cut values in order. A value is a cut if, once it is computed, no other value that
depends on the image is still needed. Constants (tables, masks) may live on, and so may sizes and what is computed from
token ids alone; they are no activations.
Where a head reads several blocks (taps), no value is the only live one; but the blocks by themselves have such values,
and what the head reads keeps the tokens that it has.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import fx

from exporter.anatomy.layout import Layout, TokenAxis
from exporter.graph.ids import of_ids_alone
from exporter.graph.nodes import image_dependent, is_tensor


def cuts(graph: fx.Graph, until: fx.Node | None = None) -> list[fx.Node]:
    """Every tensor that is the only live image-dependent activation right after it was computed, in graph order.

    Args:
        graph: captured.
        until: the last value that is looked at; what reads a value later does not count.
    """
    dependent = image_dependent(graph) - of_ids_alone(graph)
    order = {node: position for position, node in enumerate(graph.nodes)}
    end = len(order) if until is None else order[until] + 1
    read_at = {node: [order[user] for user in node.users if user in dependent] for node in dependent}
    last_use = {
        node: max((place for place in places if place < end or node is until), default=-1)
        for node, places in read_at.items()
    }
    found: list[fx.Node] = []
    live: set[fx.Node] = set()
    for node in graph.nodes:
        if order[node] >= end:
            break
        if node not in dependent or node.op == "output":
            continue
        live.add(node)
        live = {value for value in live if last_use[value] > order[node]}
        if live == {node} and is_tensor(node):
            found.append(node)
    return found


def block_cuts(graph: fx.Graph, layouts: Mapping[fx.Node, Layout], sites: Sequence[fx.Node]) -> list[fx.Node]:
    """The cuts with a token axis.

    Where some attention site has none before the next one, what the head reads is left out: as few of the last values
    as it takes. Without success, all counts.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    bounds = [*(order[site] for site in sites), len(order)]
    ends = [
        node for node in graph.nodes if order[node] > bounds[-2] and isinstance(layouts.get(node), TokenAxis)
    ]
    for until in (None, *reversed(ends)):
        found = [node for node in cuts(graph, until) if isinstance(layouts.get(node), TokenAxis)]
        places = [order[node] for node in found]
        if all(any(start < place < end for place in places) for start, end in pairwise(bounds)):
            return found
    return [node for node in cuts(graph) if isinstance(layouts.get(node), TokenAxis)]
