"""The output that tells how alike the tokens are that merge in the first blocks, for a ladder to choose engines by."""

from torch import fx

from exporter.graph.nodes import operand, output_node
from exporter.reduction import Method
from exporter.reduction.redundancy import FIRST_BLOCKS, compared_position, pair_similarity, redundancy
from exporter.rewrite.role import Role, role_of


def insert_redundancy(graph: fx.Graph, method: Method) -> fx.Node:
    """Insert what reads the first matches of a graph; a node (B, 1) fp32 (`reduction.redundancy`).

    Args:
        graph: in which tokens merge already.
        method: whose matches they are.
    """
    matches = [
        (node, role) for node in graph.nodes if (role := role_of(node)) is not None and role.part == "match"
    ]
    similarities = []
    for match, role in matches[:FIRST_BLOCKS]:
        with graph.inserting_after(match):
            similarity = graph.call_function(
                pair_similarity, (operand(match, compared_position(method)), match)
            )
        similarity.meta["role"] = Role("similarity", role.block)
        similarities.append(similarity)
    with graph.inserting_before(output_node(graph)):
        return graph.call_function(redundancy, tuple(similarities))
