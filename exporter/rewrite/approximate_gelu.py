"""Pass: GELU becomes its approximation by tanh."""

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import calls
from exporter.graph.operators import aten
from exporter.rewrite.context import PassContext


@dataclass(frozen=True)
class ApproximateGelu(GraphPass):
    """Approximate GELU where the user chose that; not exact, and verified with the rest of the program.

    Given: `gelu(x)` by the error function.
    Result: `gelu(x, approximate="tanh")`; Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, section 2.
    """

    name: ClassVar[str] = "approximate_gelu"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None where GELU stays as the model has it."""
        return cls() if context.options.forms.gelu == "tanh" else None

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Replace every GELU by the error function."""
        exact = [
            each
            for each in calls(graph_module.graph, aten.gelu.default)
            if not each.kwargs.get("approximate")
        ]
        for gelu in exact:
            gelu.kwargs = {"approximate": "tanh"}
        return PassOutcome(name=self.name, rewrites=len(exact))
