"""What a captured graph computes from token ids and masks alone, before any token has a value.

In: a captured graph. Out: which nodes these are, and whether some of them say the same: they are evaluated on trial
inputs, so that it does not matter how a library spells its masks.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, fx

from exporter.graph.nodes import evaluate, image_dependent, input_nodes, shape_of
from exporter.graph.operators import aten

_TRIALS = 8
_PROTECTED = "protected"


def id_inputs(graph: fx.Graph) -> list[fx.Node]:
    """Inputs of whole numbers, (B, N): token ids, masks, types."""
    return [
        node
        for node in input_nodes(graph)
        if not node.meta["val"].dtype.is_floating_point and len(shape_of(node)) == 2
    ]


def protect(graph: fx.Graph, count: int) -> None:
    """Write into a graph of a text encoder how many first tokens of a text never merge."""
    for node in id_inputs(graph):
        node.meta[_PROTECTED] = count


def protected_tokens(graph: fx.Graph) -> int:
    """How many first tokens of a text never merge: the class token alone, unless another number was written."""
    counts: list[int] = [node.meta.get(_PROTECTED, 1) for node in input_nodes(graph)]
    return max(counts)


def of_ids_alone(graph: fx.Graph) -> frozenset[fx.Node]:
    """Values that depend on such inputs, and on nothing that was looked up in a table of embeddings."""
    found, dependent = set(id_inputs(graph)), image_dependent(graph)
    for node in graph.nodes:
        sources = [source for source in node.all_input_nodes if source in dependent]
        if node.op == "call_function" and node.target is not aten.embedding.default and sources:
            found.update([node] if found.issuperset(sources) else [])
    return frozenset(found)


def on_trials(graph_module: fx.GraphModule, *nodes: fx.Node) -> Iterator[tuple[Tensor, ...]]:
    """Values of nodes of `of_ids_alone`, for ids of 0 and 1: in each row of an input some ones, then zeros.

    The same numbers at every call. Texts are of every kind of length, a single token and all of them among these.
    """
    inputs = id_inputs(graph_module.graph)
    generator = torch.Generator().manual_seed(0)
    for trial in range(_TRIALS):
        known = {}
        for node in inputs:
            batch, count = shape_of(node)
            lengths_B1 = torch.randint(1, count + 1, (batch, 1), generator=generator)
            if trial == 0:
                lengths_B1[0], lengths_B1[-1] = 1, count
            known[node] = (torch.arange(count) < lengths_B1).to(node.meta["val"].dtype)
        yield tuple(evaluate(graph_module, node, known) for node in nodes)
