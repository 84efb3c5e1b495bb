"""Pass: give every value of the graph the type that it is computed in."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import (
    add_call,
    add_parameter,
    attribute,
    image_dependent,
    output_node,
    trace_again,
)
from exporter.graph.operators import PRODUCT, Trait, aten, has
from exporter.rewrite.context import PassContext

NARROW = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float16}
"""The types of 16 bits, by precision; in fp8 only some products are narrower, and by another pass."""


@dataclass(frozen=True, kw_only=True)
class ConvertPrecision(GraphPass):
    """Compute in 16 bits where that is safe, and in fp32 where it is not, by what an operator does.

    Given: a graph in fp32.
    Result: products take and give the narrow type; normalisations compute in fp32 and give the narrow type; sums over
    an axis, squares and roots stay in fp32 until the next product. Everything else follows: constants take the type of
    the value that they meet, and two values of different types meet in fp32. So the residual stream, sums of narrow
    values, is narrow. Input and outputs stay in fp32.

    The merge's own islands (similarity, sizes, weighted sums, log size) are in the functions of `reduction`, which
    compute in fp32 whatever they are given. This is the same graph for every engine, since each of them would choose
    other islands, or none.

    Attributes:
        precision: the narrow type.
        normalization: whether normalisations take and give the narrow type as they are (`narrow`), for engines that
            compute in fp32 inside of them, or stand between casts (`fp32`); see `forms.Forms`.
    """

    precision: Literal["fp16", "bf16", "fp8"]
    normalization: Literal["fp32", "narrow"] = "fp32"
    name: ClassVar[str] = "convert_precision"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None for fp32 and int8."""
        match context.options.precision:
            case "fp16" | "bf16" | "fp8" as narrow:
                return cls(precision=narrow, normalization=context.options.forms.normalization)
            case _:
                return None

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Walk the graph once, casting operands and deriving every type again."""
        graph = graph_module.graph
        typing = _Typing(
            graph_module=graph_module,
            narrow=NARROW[self.precision],
            narrow_traits=PRODUCT | Trait.WIDE_INSIDE if self.normalization == "narrow" else PRODUCT,
            dependent=image_dependent(graph),
        )
        rewrites = 0
        for node in [each for each in graph.nodes if each.op == "call_function"]:
            if node in typing.dependent:
                rewrites += typing.retype(node)
        output = output_node(graph)
        for value in output.all_input_nodes:
            output.replace_input_with(value, typing.cast(value, torch.float32, output))
        return PassOutcome(name=self.name, rewrites=rewrites)

    def ensures(self, graph_module: fx.GraphModule) -> str | None:
        """Every product over the image is narrow."""
        narrow = NARROW[self.precision]
        for node in image_dependent(graph_module.graph):
            if has(node, PRODUCT) and node.meta["val"].dtype != narrow:
                return f"{node.name} computes in {node.meta['val'].dtype}"
        return None


@dataclass(kw_only=True)
class _Typing:
    """The graph while it is being typed; constants are converted once per type.

    Attributes:
        narrow_traits: of the operators that take narrow operands.
    """

    graph_module: fx.GraphModule
    narrow: torch.dtype
    narrow_traits: Trait
    dependent: frozenset[fx.Node]
    converted: dict[tuple[fx.Node, torch.dtype], fx.Node] = field(default_factory=dict)

    def retype(self, node: fx.Node) -> bool:
        """Cast a node's operands to what it computes in; return whether its own type changed."""
        before = _dtype(node)
        if has(node, self.narrow_traits):
            self._cast_operands(node, self.narrow)
        elif has(node, Trait.NORMALIZATION | Trait.WIDE_RANGE):
            self._cast_operands(node, torch.float32)
        elif self.narrow in {_dtype(source) for source in node.all_input_nodes}:
            self._cast_constants(node)
        trace_again(node)
        if has(node, Trait.NORMALIZATION) and _dtype(node) == torch.float32:
            self._hand_back(node)
        return _dtype(node) != before

    def cast(self, value: fx.Node, dtype: torch.dtype, reader: fx.Node) -> fx.Node:
        """The value in another type, computed just before `reader`; itself if it has that type or is no float."""
        current = _dtype(value)
        if current is None or not current.is_floating_point or current == dtype:
            return value
        if value.op == "get_attr":
            return self._constant(value, dtype)
        with reader.graph.inserting_before(reader):
            return add_call(reader.graph, aten.to.dtype, value, dtype)

    def _cast_operands(self, node: fx.Node, dtype: torch.dtype) -> None:
        for value in node.all_input_nodes:
            node.replace_input_with(value, self.cast(value, dtype, node))

    def _cast_constants(self, node: fx.Node) -> None:
        """Constants take the narrow type, unless a value in fp32 is there to be met as well."""
        values = [value for value in node.all_input_nodes if value in self.dependent]
        if any(_dtype(value) == torch.float32 for value in values):
            return
        for value in node.all_input_nodes:
            node.replace_input_with(value, self.cast(value, self.narrow, node))

    def _constant(self, value: fx.Node, dtype: torch.dtype) -> fx.Node:
        if (value, dtype) not in self.converted:
            narrowed = attribute(self.graph_module, value).to(dtype)
            self.converted[value, dtype] = add_parameter(
                self.graph_module, value, f"{value.name}_{str(dtype).removeprefix('torch.')}", narrowed
            )
        return self.converted[value, dtype]

    def _hand_back(self, node: fx.Node) -> None:
        readers = list(node.users)
        with node.graph.inserting_after(node):
            back = add_call(node.graph, aten.to.dtype, node, self.narrow)
        for reader in readers:
            reader.replace_input_with(node, back)


def _dtype(node: fx.Node) -> torch.dtype | None:
    """Of a value; of a list of tensors, such as what a split gives, that of the first."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else (value,)
    return next((each.dtype for each in values if isinstance(each, torch.Tensor)), None)
