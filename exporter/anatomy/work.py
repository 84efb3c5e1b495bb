"""How many multiply-accumulates a graph performs, node by node, and how they grow with the tokens.

In: a captured graph. Out: `macs_of` for single nodes, and the `Workload` that the schedule computes with. Matrix
products, convolutions and attention count; everything else is not a multiply-accumulate in the literature's sense.
"""

import math
from collections.abc import Mapping, Sequence

from torch import fx

from exporter.anatomy.depths import WHOLE, Depths
from exporter.anatomy.layout import Layout, TokenAxis
from exporter.graph.nodes import example_batch, image_dependent, operand, operands, output_node, shape_of
from exporter.graph.operators import Trait, aten, has
from exporter.schedule import Workload


def macs_of(node: fx.Node) -> int:
    """Multiply-accumulates of one node, over the whole batch that it was traced with."""
    if has(node, Trait.CONVOLUTION):
        return math.prod(shape_of(node)) * math.prod(shape_of(operand(node, 1))[1:])
    if node.target is aten.linear.default or has(node, Trait.MATMUL):
        return math.prod(shape_of(node)) * shape_of(operand(node, 0))[-1]
    if node.target in (aten.addmm.default, aten._addmm_activation.default):
        return math.prod(shape_of(node)) * shape_of(operand(node, 1))[-1]
    if has(node, Trait.ATTENTION):
        query, key, value = (operand(node, position) for position in range(3))
        pairs = math.prod(shape_of(query)[:-1]) * shape_of(key)[-2]
        return pairs * (shape_of(query)[-1] + shape_of(value)[-1])
    return 0


def executed_macs(graph: fx.Graph, outputs: int | None = None) -> int:
    """Multiply-accumulates that a graph really performs for one image; constants are computed once and for all.

    Args:
        graph: with the shape of every value.
        outputs: how many of its results are the model's own, the first ones; what only others need does not count.
            None for all of them.
    """
    batch, dependent = example_batch(graph), image_dependent(graph)
    read, waiting = set[fx.Node](), operands(output_node(graph))[:outputs]
    while waiting:
        node = waiting.pop()
        if node not in read:
            read.add(node)
            waiting += node.all_input_nodes
    return sum(macs_of(node) for node in dependent if node in read) // batch


def workload(graph: fx.Graph, layouts: Mapping[fx.Node, Layout], depths: Depths, blocks: int) -> Workload:
    """Sort the MACs of one image by segment (between merge points) and by growth with the token count.

    What runs on all original tokens again, in a head, does not depend on the schedule.
    """
    dependent = image_dependent(graph)
    segments: list[list[fx.Node]] = [[] for _ in range(blocks + 1)]
    fixed: list[fx.Node] = []
    for node in dependent:
        depth = depths.reads.get(node, WHOLE) if _token_counts(node, layouts) else WHOLE
        (fixed if depth == WHOLE else segments[depth]).append(node)
    per_token, per_pair = zip(*(growing_macs(nodes, layouts) for nodes in segments), strict=True)
    batch = example_batch(graph)
    return Workload(
        fixed=sum(macs_of(node) // batch for node in fixed), per_token=per_token, per_pair=per_pair
    )


def growing_macs(nodes: Sequence[fx.Node], layouts: Mapping[fx.Node, Layout]) -> tuple[int, int]:
    """Multiply-accumulates of one image per token, and per pair of tokens, of a run of nodes."""
    batch = example_batch(nodes[0].graph) if nodes else 1
    counted = [(macs_of(node) // batch, _token_counts(node, layouts)) for node in nodes if macs_of(node)]
    per_token = sum(macs // tokens[0] for macs, tokens in counted if len(tokens) == 1)
    return per_token, sum(macs // (tokens[0] * tokens[1]) for macs, tokens in counted if len(tokens) == 2)


def _token_counts(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> list[int]:
    """The token axes that a product runs over: its left operand's, and for attention its keys' as well."""
    rows = [operand(node, 0), operand(node, 1)] if has(node, Trait.ATTENTION) else node.all_input_nodes
    found = [layouts.get(source) for source in rows]
    counts = [layout.tokens for layout in found if isinstance(layout, TokenAxis)]
    return counts if has(node, Trait.ATTENTION) else counts[:1]
