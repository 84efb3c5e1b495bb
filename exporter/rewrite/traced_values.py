"""Shape and type of every value of a graph of any phase, also after tokens have merged."""

from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from exporter.graph.nodes import input_nodes, shape_of


def traced_values(graph_module: fx.GraphModule) -> dict[fx.Node, Any]:
    """Run a graph without computing, at the batch that it was traced with; tensors without content by node."""
    interpreter = _Interpreter(graph_module)
    with torch.no_grad(), interpreter.mode:
        inputs = [
            torch.empty(shape_of(node), dtype=node.meta["val"].dtype)
            for node in input_nodes(graph_module.graph)
        ]
        interpreter.run(*inputs, enable_io_processing=False)
    return interpreter.found


class _Interpreter(fx.Interpreter):
    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.mode = FakeTensorMode()
        self.found: dict[fx.Node, Any] = {}

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        return self.mode.from_tensor(value) if isinstance(value, Tensor) else value

    def run_node(self, n: fx.Node) -> Any:
        self.found[n] = super().run_node(n)
        return self.found[n]
