"""Pass: compute only the tokens that are read."""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from exporter.anatomy.demand import operands_to_cut, token_demand
from exporter.anatomy.layout import TokenAxis
from exporter.anatomy.token_axis import trace_tokens
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import add_call
from exporter.graph.operators import aten
from exporter.rewrite.generalize_token_shapes import GeneralizeTokenShapes


@dataclass(frozen=True)
class RemoveDeadTokens(GraphPass):
    """Cut values down to their first tokens where nothing reads the others. Exact.

    Given: a head that reads p prefix tokens of the last block.
    Result: that block's queries, projection and MLP run on p tokens; its keys and values stay whole.

    Requires shapes that do not name the token count (`GeneralizeTokenShapes`).
    """

    name: ClassVar[str] = "remove_dead_tokens"
    optional: ClassVar[bool] = True

    def requires(self, graph_module: fx.GraphModule) -> str | None:
        """Shapes follow the tokens."""
        return GeneralizeTokenShapes().ensures(graph_module)

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Insert a slice wherever a value with fewer needed tokens reads one with more."""
        graph = graph_module.graph
        layouts = trace_tokens(graph)
        demand = token_demand(graph, layouts)
        cut: dict[tuple[fx.Node, int], fx.Node] = {}
        for node in [node for node in graph.nodes if demand.get(node) is not None]:
            wanted = demand[node]
            assert wanted is not None
            for operand in operands_to_cut(node, demand):
                layout = layouts[operand]
                assert isinstance(layout, TokenAxis)
                if (operand, wanted) not in cut:
                    with graph.inserting_after(operand):
                        cut[operand, wanted] = add_call(
                            graph, aten.slice.Tensor, operand, layout.axis, 0, wanted
                        )
                _replace_row_input(node, operand, cut[operand, wanted])
        return PassOutcome(name=self.name, rewrites=len(cut))


def _replace_row_input(node: fx.Node, operand: fx.Node, shorter: fx.Node) -> None:
    """Replace an operand where its rows become the node's rows; attention keeps its keys and values."""
    if node.target is aten.scaled_dot_product_attention.default:
        node.args = (shorter, *node.args[1:])
    else:
        node.replace_input_with(operand, shorter)
