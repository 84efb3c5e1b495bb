"""Pass: compute constants once that every engine would round otherwise."""

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import fx

from exporter.anatomy.depths import leading_to
from exporter.graph import GraphPass, PassOutcome
from exporter.graph.nodes import add_parameter, evaluate, image_dependent, is_tensor
from exporter.graph.operators import Trait, aten, has
from exporter.rewrite.context import PassContext


@dataclass(frozen=True)
class FoldConstants(GraphPass):
    """Evaluate what depends on no input and is computed by powers, roots or exponentials.

    Given: `sin(step * exp(arange(n) * c))`, as denoisers embed a step.
    Result: `sin(step * table)`. A frequency that differs in its last bit turns an angle of 999 by 6e-5.

    Declines where the value depends on the batch.
    """

    name: ClassVar[str] = "fold_constants"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None for a model that is given no step, as those are whose tokens leave for good."""
        return cls() if context.schedule.around else None

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Fold the last value of every such computation."""
        graph, rewrites = graph_module.graph, 0
        dependent = image_dependent(graph)
        for node in list(graph.nodes):
            if node.op != "call_function" or node in dependent or not is_tensor(node):
                continue
            sources = leading_to([node])
            if (
                dependent.isdisjoint(node.users)
                or not any(has(each, Trait.WIDE_RANGE) for each in sources)
                or any(each.target is aten.sym_size.int for each in sources)
            ):
                continue
            constant = add_parameter(graph_module, node, "table", evaluate(graph_module, node, {}))
            node.replace_all_uses_with(constant)
            rewrites += 1
        graph.eliminate_dead_code()
        return PassOutcome(name=self.name, rewrites=rewrites)
