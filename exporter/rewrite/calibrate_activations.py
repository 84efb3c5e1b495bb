"""Pass: run calibration inputs, and note how large the operands of every linear layer become."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, fx

from exporter.errors import InternalError
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import calls, operand
from exporter.graph.operators import aten
from exporter.rewrite.context import PassContext


@dataclass(frozen=True, kw_only=True)
class CalibrateActivations(GraphPass):
    """Record the largest absolute value of what enters each linear layer, before anything merges.

    A merged token is a mean of tokens: merging makes none of these larger but by what follows from it.

    Attributes:
        context: `ranges` is written.
        inputs: (n, ...) for every input, as the program takes them.
    """

    context: PassContext
    inputs: tuple[Tensor, ...]
    name: ClassVar[str] = "calibrate_activations"
    only_notes: ClassVar[bool] = True

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None for precisions without scales.

        Raises:
            InternalError: nothing to calibrate on.
        """
        if context.options.precision != "fp8":
            return None
        if context.options.calibration is None:
            raise InternalError("a program in fp8 is rewritten with calibration inputs")
        return cls(context=context, inputs=context.options.calibration)

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Run the graph on all inputs by batches, since it may take nothing else; the last one is filled up."""
        layers = calls(graph_module.graph, aten.linear.default)
        observer = _Observer(graph_module, frozenset(operand(layer, 0) for layer in layers))
        batch = self.context.options.batch
        with torch.no_grad():
            for chunk in zip(*(each.split(batch) for each in self.inputs), strict=True):
                observer.run(*(_filled(part, batch) for part in chunk))
        self.context.ranges = {layer.name: observer.largest[operand(layer, 0)] for layer in layers}
        return PassOutcome(name=self.name, rewrites=0)


def _filled(rows: Tensor, count: int) -> Tensor:
    return torch.cat((rows, rows[-1:].expand(count - len(rows), *rows.shape[1:])))


class _Observer(fx.Interpreter):
    """Executes a graph and keeps the largest absolute value of some nodes.

    Attributes:
        largest: by node, over all runs.
    """

    def __init__(self, graph_module: fx.GraphModule, observed: frozenset[fx.Node]) -> None:
        super().__init__(graph_module)
        self._observed = observed
        self.largest: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self._observed:
            self.largest[n] = max(self.largest.get(n, 0.0), float(result.abs().max()))
        return result
