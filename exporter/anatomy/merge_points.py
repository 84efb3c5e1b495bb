"""Where tokens can be merged: the values through which everything about the image has to pass.

In: a captured graph. Out: its cut values in order. A value is a cut if, once it is computed, no other value that
depends on the image is still needed. Constants (tables, masks) may live on, and so may sizes; they are no activations.
"""

from torch import fx

from exporter.graph.nodes import image_dependent, is_tensor


def cuts(graph: fx.Graph) -> list[fx.Node]:
    """Every tensor that is the only live image-dependent activation right after it was computed, in graph order."""
    dependent = image_dependent(graph)
    order = {node: position for position, node in enumerate(graph.nodes)}
    last_use = {
        node: max((order[user] for user in node.users if user in dependent), default=-1) for node in dependent
    }
    found: list[fx.Node] = []
    live: set[fx.Node] = set()
    for node in graph.nodes:
        if node not in dependent or node.op == "output":
            continue
        live.add(node)
        live = {value for value in live if last_use[value] > order[node]}
        if live == {node} and is_tensor(node):
            found.append(node)
    return found
