"""Pass: GELU becomes its approximation by tanh, on a GPU within the product before it."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import add_call, calls, operand
from exporter.graph.operators import aten
from exporter.rewrite.context import PassContext


@dataclass(frozen=True)
class ApproximateGelu(GraphPass):
    """Approximate GELU where the user chose that; not exact, and verified with the rest of the program.

    Given: `gelu(x)` by the error function.
    Result: `gelu(x, approximate="tanh")`; Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, section 2. With
    kernels, `linear_gelu` of a linear layer and the GELU after it.

    Attributes:
        within_product: whether a product computes the GELU after it.
    """

    within_product: bool
    name: ClassVar[str] = "approximate_gelu"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None where GELU stays as the model has it."""
        forms = context.options.forms
        return cls(within_product=forms.merge == "kernels") if forms.gelu == "tanh" else None

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Replace every GELU by the error function."""
        exact = [
            each
            for each in calls(graph_module.graph, aten.gelu.default)
            if not each.kwargs.get("approximate")
        ]
        for gelu in exact:
            gelu.kwargs = {"approximate": "tanh"}
            layer = operand(gelu, 0)
            if self.within_product and _is_layer(layer):
                with gelu.graph.inserting_before(gelu):
                    product = add_call(gelu.graph, linear_gelu, *layer.args)
                product.meta["custom"] = gelu.meta.get("custom", {})
                gelu.replace_all_uses_with(product)
        return PassOutcome(name=self.name, rewrites=len(exact))


def linear_gelu(rows: Tensor, weight_OI: Tensor, bias_O: Tensor) -> Tensor:
    """GELU of a linear layer as one product; by tanh on a GPU, where that is all there is, and exactly on the CPU."""
    product = torch.ops.aten._addmm_activation.default(
        bias_O, rows.reshape(-1, rows.shape[-1]), weight_OI.t(), use_gelu=True
    )
    result: Tensor = product.reshape(*rows.shape[:-1], weight_OI.shape[0])
    return result


def _is_layer(node: fx.Node) -> bool:
    """Whether a node is a linear layer with a bias whose result has one reader."""
    return node.target is aten.linear.default and len(node.all_input_nodes) == 3 and len(node.users) == 1
