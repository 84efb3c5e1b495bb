"""Pass: remove nodes that compute nothing."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import calls, operand
from exporter.graph.operators import Trait, aten, has, operators

_WHEN_NOTHING_CHANGES = {
    *operators(Trait.CAST | Trait.RESHAPE),
    aten.expand.default,
    aten.slice.Tensor,
    aten.squeeze.dim,
}


@dataclass(frozen=True)
class RemoveNoOps(GraphPass):
    """Drop what static shapes and one dtype turned into the identity.

    Given: `clone(x)`, `contiguous(x)`, `to(x, x.dtype)`, `reshape(x, x.shape)`, `squeeze(x)` that finds nothing.
    Result: `x`.
    """

    name: ClassVar[str] = "remove_no_ops"
    optional: ClassVar[bool] = True

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Replace every such node by its input."""
        graph, rewrites = graph_module.graph, 0
        for node in calls(graph, *operators(Trait.COPY), *_WHEN_NOTHING_CHANGES):
            if _is_identity(node):
                node.replace_all_uses_with(operand(node, 0))
                graph.erase_node(node)
                rewrites += 1
        return PassOutcome(name=self.name, rewrites=rewrites)


def _is_identity(node: fx.Node) -> bool:
    if has(node, Trait.COPY):
        return True
    before, after = operand(node, 0).meta.get("val"), node.meta.get("val")
    if not (isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor)):
        return False
    return before.dtype == after.dtype and tuple(before.shape) == tuple(after.shape)
