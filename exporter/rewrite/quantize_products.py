"""Pass: the linear layers of blocks compute in fp8."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, fx

from exporter.errors import UnsupportedGraphError
from exporter.graph.fp8 import GRANULE, LARGEST, quantize_fp8
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import add_call, add_parameter, attribute, calls, operand, optional_operand
from exporter.graph.operators import aten
from exporter.rewrite.annotate_blocks import HEAD, STEM, annotations
from exporter.rewrite.channel_rows import has_parameters
from exporter.rewrite.context import PassContext


@dataclass(frozen=True, kw_only=True)
class QuantizeProducts(GraphPass):
    """Give the linear layers of blocks operands in e4m3, with one scale for each tensor.

    Given: `linear(x (..., I), W (O, I), b (O))` in fp16, in a block.
    Result: `product(quantize_fp8(x, s), W / t in e4m3, s, t, b)`, where s and t make the largest value that was seen
    of x, and that of W, the largest number of e4m3. Attention, norms, matching, stem and head stay as they are.

    Declines layers whose sides are no multiples of 16, or whose operand was never anything but zero.

    Attributes:
        context: `ranges` is read, `scales` is written.
        product: the form of such a layer; see `forms.FUNCTIONS`.
    """

    context: PassContext
    product: Callable[..., Tensor]
    name: ClassVar[str] = "quantize_products"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None for other precisions."""
        if context.options.precision != "fp8":
            return None
        return cls(context=context, product=context.options.forms.function("product"))

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Replace every layer that can be.

        Raises:
            UnsupportedGraphError: none can.
        """
        graph = graph_module.graph
        labels, ranges = annotations(graph), self.context.ranges
        declined, quantized = list[str](), dict[fx.Node, fx.Node]()
        for layer in calls(graph, aten.linear.default):
            if labels.get(layer.name, STEM) in (STEM, HEAD):
                continue
            sides = attribute(graph_module, operand(layer, 1)).shape if has_parameters(layer) else (1,)
            if any(side % GRANULE for side in sides) or not ranges[layer.name]:
                declined.append(
                    f"{layer.name}: expected sides in multiples of {GRANULE} and operands that are not 0"
                )
                continue
            rows, scale = operand(layer, 0), ranges[layer.name] / LARGEST
            if rows not in quantized:
                with graph.inserting_before(layer):
                    quantized[rows] = add_call(graph, quantize_fp8, rows, scale)
            self.context.scales[str(operand(layer, 1).target)] = scale
            self._replace(graph_module, layer, quantized[rows])
        if not self.context.scales:
            raise UnsupportedGraphError(
                "model: precision fp8 is for linear layers in blocks, with sides in multiples of 16, and this model "
                "has none; use --precision fp16"
            )
        return PassOutcome(name=self.name, rewrites=len(self.context.scales), declined=tuple(declined))

    def _replace(self, graph_module: fx.GraphModule, layer: fx.Node, rows: fx.Node) -> None:
        name, weight, scale = layer.name, attribute(graph_module, operand(layer, 1)).float(), rows.args[1]
        weight_scale = max(float(weight.abs().max()), torch.finfo(torch.float32).tiny) / LARGEST
        parameters = {
            "weight_fp8": quantize_fp8(weight, weight_scale),
            "row_scale": torch.tensor(scale),
            "weight_scale": torch.tensor(weight_scale),
        }
        nodes = [
            add_parameter(graph_module, layer, f"{name}_{part}", value) for part, value in parameters.items()
        ]
        with layer.graph.inserting_before(layer):
            product = add_call(layer.graph, self.product, rows, *nodes, optional_operand(layer, 2))
        product.meta["custom"] = layer.meta.get("custom", {})
        layer.replace_all_uses_with(product)
        layer.graph.erase_node(layer)
