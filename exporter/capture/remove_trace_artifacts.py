"""Pass: remove artifacts of tracing that no later stage needs."""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import calls, operand
from exporter.graph.operators import aten


@dataclass(frozen=True)
class RemoveTraceArtifacts(GraphPass):
    """Drop assertions about metadata, dependences that are only about a dtype, and assumptions about strides.

    Given: `_assert_tensor_metadata(x, ...)`; `dropout(x, p, False)`; `type_as(x, y)`; `view(x, sizes)`.
    Result: nothing; `x`; `to(x, y.dtype)`, so that a table cast to the activations' dtype does not depend on the image;
    `reshape(x, sizes)`, which holds for any strides.
    """

    name: ClassVar[str] = "remove_trace_artifacts"

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Erase the assertions and dropouts, rewrite the casts and views."""
        graph = graph_module.graph
        assertions = calls(graph, aten._assert_tensor_metadata.default)
        for node in assertions:
            graph.erase_node(node)
        dropouts = [node for node in calls(graph, aten.dropout.default) if not node.args[2]]
        for node in dropouts:
            node.replace_all_uses_with(operand(node, 0))
            graph.erase_node(node)
        casts = calls(graph, aten.type_as.default)
        for node in casts:
            node.target = aten.to.dtype
            node.args = (node.args[0], node.meta["val"].dtype)
        views = calls(graph, aten.view.default, aten._unsafe_view.default)
        for node in views:
            node.target = aten.reshape.default
        return PassOutcome(name=self.name, rewrites=len(assertions) + len(dropouts) + len(casts) + len(views))
