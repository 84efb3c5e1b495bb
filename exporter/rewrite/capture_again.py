"""Pass: capture the rewritten graph, so that every shape and type in it is traced and not derived."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, fx

from exporter.capture import EXAMPLE_BATCH, export_graph
from exporter.graph import GraphPass, PassOutcome
from exporter.graph.nodes import input_nodes
from exporter.rewrite.context import PassContext


@dataclass(frozen=True, kw_only=True)
class CaptureAgain(GraphPass):
    """Export the graph with `torch.export`; calls of the reduction's functions become operators.

    Attributes:
        context: `exported` is written.
    """

    context: PassContext
    name: ClassVar[str] = "capture_again"
    only_notes: ClassVar[bool] = True

    @classmethod
    def configured(cls, context: PassContext) -> Self:
        """Always runs."""
        return cls(context=context)

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Export; the graph itself stays as it is."""
        graph_module.recompile()
        options = self.context.options
        batch = EXAMPLE_BATCH if options.dynamic_batch else options.batch
        self.context.exported = export_graph(
            graph_module, *_examples(graph_module, batch), dynamic_batch=options.dynamic_batch
        )
        return PassOutcome(name=self.name, rewrites=0)

    def result(self, graph_module: fx.GraphModule) -> fx.GraphModule:
        """The exported program as a graph module over the same parameters."""
        return eager_module(self.context)


def eager_module(context: PassContext) -> fx.GraphModule:
    """The exported program of a context as a graph module over the same parameters."""
    assert context.exported is not None
    module = context.exported.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    return module


def _examples(graph_module: fx.GraphModule, batch: int) -> list[Tensor]:
    traced = [node.meta["val"] for node in input_nodes(graph_module.graph)]
    return [torch.zeros((batch, *map(int, each.shape[1:])), dtype=each.dtype) for each in traced]
