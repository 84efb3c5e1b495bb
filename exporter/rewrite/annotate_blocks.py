"""Which block of the model each node belongs to, written into the graph, so that it reaches the engine's own names.

Engines and profilers name nodes, not blocks. The annotation travels in `meta["custom"]`, which `torch.export` keeps
through a second capture.
"""

from torch import fx

from exporter.anatomy import Anatomy
from exporter.anatomy.merge_points import cuts

STEM = "stem"
HEAD = "head"
KEY = "block"


def annotate_blocks(graph: fx.Graph, anatomy: Anatomy) -> None:
    """Annotate every node: `stem` up to the input of block 0, `block_00` and so on, `head` behind the last block.

    A block begins behind the last value before its attention through which everything passes, and the last one ends
    with the first such value behind its merge point.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    passed = [order[node] for node in cuts(graph)]
    starts = [
        max((place for place in passed if place < order[block.attention]), default=-1)
        for block in anatomy.blocks
    ]
    last = order[anatomy.blocks[-1].merge_point]
    end = min((place for place in passed if place > last), default=len(order))
    for node, position in order.items():
        begun = sum(position > start for start in starts)
        label = HEAD if position > end else block_label(begun - 1) if begun else STEM
        node.meta["custom"] = {KEY: label}


def spread_annotation(graph: fx.Graph) -> None:
    """Give a node that a later pass inserted the annotation of the one before it."""
    label = STEM
    for node in graph.nodes:
        label = node.meta.setdefault("custom", {}).setdefault(KEY, label)


def block_label(block: int) -> str:
    """The annotation of a block."""
    return f"block_{block:02}"


def annotations(graph: fx.Graph) -> dict[str, str]:
    """Annotation by node name; empty for a graph that has none."""
    return {node.name: node.meta["custom"][KEY] for node in graph.nodes if KEY in node.meta.get("custom", {})}
