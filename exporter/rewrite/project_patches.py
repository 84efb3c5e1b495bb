"""Pass: the patch embedding becomes a product of matrices."""

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import (
    add_call,
    add_parameter,
    attribute,
    calls,
    integers,
    operand,
    optional_operand,
    shape_of,
)
from exporter.graph.operators import Trait, aten, operators
from exporter.rewrite.context import PassContext

_CONVOLUTION_DEFAULTS = [1, 0, 1, 1]
"""Stride, padding, dilation, groups."""


@dataclass(frozen=True)
class ProjectPatches(GraphPass):
    """Cut patches out and multiply them by the convolution's weight as a matrix.

    Given: `convolution(x (B, I, h * p, w * q), W (O, I, p, q), b)` with a stride of (p, q) and no padding.
    Result: `linear(patches (B, h * w, I * p * q), W (O, I * p * q), b)`, transposed to (B, O, h, w). A library's own
    transposition to (B, h * w, O) after it undoes that one, and neither moves anything.

    Declines convolutions whose windows overlap, are padded, dilated or grouped.
    """

    name: ClassVar[str] = "project_patches"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None where the stem stays a convolution."""
        return cls() if context.options.forms.stem == "product" else None

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Replace every convolution that cuts its input into patches."""
        rewrites, declined = 0, list[str]()
        for convolution in calls(graph_module.graph, *operators(Trait.CONVOLUTION)):
            if _cuts_patches(convolution):
                _project(graph_module, convolution)
                rewrites += 1
            else:
                declined.append(f"{convolution.name}: its windows are no patches side by side")
        return PassOutcome(name=self.name, rewrites=rewrites, declined=tuple(declined))


def _cuts_patches(convolution: fx.Node) -> bool:
    weight = operand(convolution, 1)
    if convolution.target is not aten.conv2d.default or weight.op != "get_attr":
        return False
    given = list[object](convolution.args[3:])
    stride, padding, dilation, groups = given + _CONVOLUTION_DEFAULTS[len(given) :]
    kernel = shape_of(weight)[2:]
    image = shape_of(operand(convolution, 0))[2:]
    whole = all(size % patch == 0 for size, patch in zip(image, kernel, strict=True))
    side_by_side = tuple(integers(stride) * (2 if isinstance(stride, int) else 1)) == kernel
    plain = not any(integers(padding)) and set(integers(dilation)) == {1} and groups == 1
    return bool(whole and side_by_side and plain)


def _project(graph_module: fx.GraphModule, convolution: fx.Node) -> None:
    image, weight, bias = operand(convolution, 0), operand(convolution, 1), optional_operand(convolution, 2)
    outputs, inputs, height, width = shape_of(weight)
    rows, columns = shape_of(convolution)[2:]
    matrix = attribute(graph_module, weight).flatten(1)
    parameter = add_parameter(graph_module, convolution, f"{weight.name}_matrix", matrix)
    graph = graph_module.graph
    with graph.inserting_before(convolution):
        cut = add_call(graph, aten.reshape.default, image, [-1, inputs, rows, height, columns, width])
        sorted_ = add_call(graph, aten.permute.default, cut, [0, 2, 4, 1, 3, 5])
        patches = add_call(
            graph, aten.reshape.default, sorted_, [-1, rows * columns, inputs * height * width]
        )
        product = add_call(graph, aten.linear.default, patches, parameter, bias)
        channels_first = add_call(graph, aten.transpose.int, product, 1, 2)
        result = add_call(graph, aten.reshape.default, channels_first, [-1, outputs, rows, columns])
    convolution.replace_all_uses_with(result)
    graph.erase_node(convolution)
