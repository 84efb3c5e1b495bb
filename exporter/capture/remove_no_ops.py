"""Pass: remove nodes that compute nothing."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from exporter.capture.graph import aten, calls, operand
from exporter.capture.graph_pass import GraphPass, PassOutcome

_ALWAYS = {
    aten.alias.default,
    aten.detach.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
}
_WHEN_NOTHING_CHANGES = {
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.device,
    aten.to.other,
    aten._to_copy.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.expand.default,
    aten.slice.Tensor,
}


@dataclass(frozen=True)
class RemoveNoOps(GraphPass):
    """Drop what static shapes and one dtype turned into the identity.

    Given: `clone(x)`, `contiguous(x)`, `to(x, x.dtype)`, `reshape(x, x.shape)`.
    Result: `x`.
    """

    name: ClassVar[str] = "remove_no_ops"

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Replace every such node by its input."""
        graph, rewrites = graph_module.graph, 0
        for node in calls(graph, *_ALWAYS, *_WHEN_NOTHING_CHANGES):
            if _is_identity(node):
                node.replace_all_uses_with(operand(node, 0))
                graph.erase_node(node)
                rewrites += 1
        return PassOutcome(name=self.name, rewrites=rewrites)


def _is_identity(node: fx.Node) -> bool:
    if node.target in _ALWAYS:
        return True
    before, after = operand(node, 0).meta.get("val"), node.meta.get("val")
    if not (isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor)):
        return False
    return before.dtype == after.dtype and tuple(before.shape) == tuple(after.shape)
