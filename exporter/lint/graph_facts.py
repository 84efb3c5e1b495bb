"""An ONNX graph as the rules see it: nodes, types, shapes, and what is known before anything runs.

In: a model without its weights, shapes inferred (`load`). Out: `GraphFacts`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

Node = onnx.NodeProto
Dim = int | str | None
Shape = tuple[Dim, ...]
"""A number, a symbol's name, or None where nothing is known."""

DEFAULT_DOMAIN = ("", "ai.onnx")

_SHORT_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT4E2M1: "fp4",
}

_MEASURES = ("Shape", "Size")
_RANDOM = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """What the rules ask about.

    Attributes:
        ir_version: of the file.
        opset: of the default domain; 0 where the model names none.
        inputs: of the graph, without those that initializers fill.
        nodes: all of them, those of inner graphs included.
        weights: names of initializers and of Constant nodes' results.
        types: of every value that is known, by short name: `fp16`, `int64`.
        shapes: of every value that is known.
        tensors: small weights, which have their data.
    """

    ir_version: int
    opset: int
    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    weights: frozenset[str]
    types: Mapping[str, str]
    shapes: Mapping[str, Shape]
    tensors: Mapping[str, TensorProto]

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that computes a value."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read a value."""
        found: defaultdict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found[name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def constants(self) -> frozenset[str]:
        """Values that depend on no input, and the shapes of tensors of static shape."""
        return self._propagate(lambda node: node.op_type in _MEASURES and self.is_static(operand(node, 0)))

    @cached_property
    def sizes(self) -> frozenset[str]:
        """Values that no data decides: constants, shapes, and what is computed from these."""
        return self._propagate(lambda node: node.op_type in _MEASURES)

    def value(self, name: str) -> np.ndarray[Any, Any] | None:
        """What a small weight holds; None for anything else, and for data that lies in another file."""
        tensor = self.tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def scalar(self, name: str) -> float | None:
        """The only element of a small weight."""
        array = self.value(name)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def of(self, *operators: str) -> Iterator[Node]:
        """Nodes of these operators of the default domain."""
        return (node for node in self.nodes if node.op_type in operators and node.domain in DEFAULT_DOMAIN)

    def is_static(self, name: str) -> bool:
        """Whether every dimension is a number."""
        shape = self.shapes.get(name)
        return shape is not None and all(isinstance(size, int) for size in shape)

    def _propagate(self, starts: Callable[[Node], bool]) -> frozenset[str]:
        known = set(self.weights)
        for node in self.nodes:
            inner = any(each.HasField("g") or each.graphs for each in node.attribute)
            if node.op_type in _RANDOM or inner:
                continue
            if starts(node) or all(name in known for name in node.input if name):
                known.update(node.output)
        return frozenset(known)


def label(at: Node | str) -> str:
    """What to call a node that may have no name."""
    return at if isinstance(at, str) else at.name or next(iter(at.output), at.op_type)


def attribute(node: Node, name: str, default: Any = None) -> Any:
    """An attribute's value."""
    for each in node.attribute:
        if each.name == name:
            return onnx.helper.get_attribute_value(each)
    return default


def operand(node: Node, index: int) -> str:
    """The name of an input; empty where it is left out."""
    return node.input[index] if index < len(node.input) else ""


def short_name(data_type: int) -> str:
    """`fp16` for FLOAT16, `int64` for INT64; empty for an undefined type."""
    if data_type in _SHORT_NAMES:
        return _SHORT_NAMES[data_type]
    names = TensorProto.DataType.keys()
    return TensorProto.DataType.Name(data_type).lower() if 0 < data_type < len(names) else ""


def shape_text(shape: Shape | None) -> str:
    """`(1, 12, ?, 64)`."""
    if shape is None:
        return "an unknown shape"
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"


def facts_of(model: onnx.ModelProto) -> GraphFacts:
    """Read a model whose shapes are inferred."""
    graphs = list(_graphs(model.graph))
    tensors = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    nodes = tuple(node for graph in graphs for node in graph.node)
    sparse = {tensor.values.name for graph in graphs for tensor in graph.sparse_initializer}
    constants = {node.output[0]: node for node in nodes if node.op_type == "Constant"}
    tensors |= {name: held for name, node in constants.items() if (held := _held_by(node)) is not None}
    described = list(_described(graphs))
    return GraphFacts(
        ir_version=model.ir_version,
        opset=max(
            (entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAIN), default=0
        ),
        inputs=tuple(value.name for value in model.graph.input if value.name not in tensors),
        nodes=nodes,
        weights=frozenset({*tensors, *sparse, *constants}),
        types={value.name: short_name(value.type.tensor_type.elem_type) for value in described}
        | {name: short_name(tensor.data_type) for name, tensor in tensors.items()},
        shapes={value.name: _shape(value) for value in described if value.type.tensor_type.HasField("shape")}
        | {name: tuple(tensor.dims) for name, tensor in tensors.items()},
        tensors={name: tensor for name, tensor in tensors.items() if _has_data(tensor)},
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for each in node.attribute:
            for inner in (*([each.g] if each.HasField("g") else ()), *each.graphs):
                yield from _graphs(inner)


def _described(graphs: Iterable[onnx.GraphProto]) -> Iterator[onnx.ValueInfoProto]:
    for graph in graphs:
        for value in (*graph.value_info, *graph.input, *graph.output):
            if value.type.HasField("tensor_type"):
                yield value


def _shape(value: onnx.ValueInfoProto) -> Shape:
    return tuple(
        size.dim_value if size.HasField("dim_value") and size.dim_value >= 0 else size.dim_param or None
        for size in value.type.tensor_type.shape.dim
    )


def _held_by(node: Node) -> TensorProto | None:
    for each in node.attribute:
        held: TensorProto = each.t
        match each.name:
            case "value":
                return held
            case "value_float" | "value_floats":
                return numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(each), np.float32))
            case "value_int" | "value_ints":
                return numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(each), np.int64))
    return None


def _has_data(tensor: TensorProto) -> bool:
    if tensor.data_location == TensorProto.EXTERNAL:
        return False
    return 0 in tensor.dims or any(field.name.endswith("_data") for field, _ in tensor.ListFields())
