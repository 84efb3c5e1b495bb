"""Questions about a captured graph: shapes, constants, what depends on the image; and how to add nodes."""

import math
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher

from exporter.errors import InternalError
from exporter.graph.operators import aten

EXAMPLE_BATCH = 2
"""The batch that a capture traces with; the batch axis itself stays symbolic."""


def input_nodes(graph: fx.Graph) -> tuple[fx.Node, ...]:
    """The placeholders, at least one, in the order of the call; the first axis of each is the batch."""
    placeholders = tuple(graph.find_nodes(op="placeholder"))
    if not placeholders:
        raise InternalError("a captured graph has at least one input, this one has none")
    return placeholders


def example_batch(graph: fx.Graph) -> int:
    """The batch that the graph was traced with, or is fixed to."""
    return shape_of(input_nodes(graph)[0])[0]


def fake_mode(graph: fx.Graph) -> Any:
    """Inside of it, operators only compute shapes and dtypes, as they did when the graph was traced."""
    return input_nodes(graph)[0].meta["val"].fake_mode


def output_node(graph: fx.Graph) -> fx.Node:
    """The graph's output; its single argument is a tuple of nodes."""
    return graph.output_node()


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The traced shape, with the symbolic batch at its example value."""
    return tuple(_concrete(size) for size in node.meta["val"].shape)


def operand(node: fx.Node, position: int) -> fx.Node:
    """The argument at a position, which is another node's value."""
    value = node.args[position]
    if not isinstance(value, fx.Node):
        raise InternalError(f"argument {position} of {node.name} is {value!r}, expected a value")
    return value


def optional_operand(node: fx.Node, position: int) -> fx.Node | None:
    """The argument at a position if it is there and is another node's value."""
    value = node.args[position] if len(node.args) > position else None
    return value if isinstance(value, fx.Node) else None


def operands(node: fx.Node) -> list[fx.Node]:
    """The values in a list that is the first argument, as in `cat` and the output."""
    values = node.args[0]
    if not isinstance(values, list | tuple):
        raise InternalError(f"the first argument of {node.name} is {values!r}, expected a list")
    return [value for value in values if isinstance(value, fx.Node)]


def integer(node: fx.Node, position: int, default: int = 0) -> int:
    """The integer argument at a position, or its default."""
    value = node.args[position] if len(node.args) > position else default
    if not isinstance(value, int):
        raise InternalError(f"argument {position} of {node.name} is {value!r}, expected an integer")
    return value


def integers(value: object) -> list[int]:
    """An argument that is an integer or a list of them, as a list."""
    listed = value if isinstance(value, list | tuple) else [value]
    return [each for each in listed if isinstance(each, int)]


def is_tensor(node: fx.Node) -> bool:
    """Whether the node's value is one tensor (not a list of them, not a size)."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def axis_of(axis: int, ndim: int) -> int:
    """A possibly negative axis, counted from the front."""
    return axis % ndim if ndim else axis


def attribute(graph_module: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    """The parameter or buffer that a `get_attr` node reads."""
    value: Any = operator.attrgetter(str(node.target))(graph_module)
    if not isinstance(value, torch.Tensor):
        raise InternalError(f"{node.target} is not a tensor")
    return value


def add_parameter(graph_module: fx.GraphModule, before: fx.Node, name: str, value: torch.Tensor) -> fx.Node:
    """Register a constant under a fresh name and return the `get_attr` node that reads it, placed before a node."""
    unique, suffix = name, 0
    while hasattr(graph_module, unique):
        suffix += 1
        unique = f"{name}_{suffix}"
    graph_module.register_buffer(unique, value.detach().contiguous())
    with graph_module.graph.inserting_before(before):
        node = graph_module.graph.get_attr(unique)
    node.meta["val"] = fake_mode(graph_module.graph).from_tensor(value)
    return node


def add_call(graph: fx.Graph, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """Append an operator at the graph's insertion point, with the shape it would have been traced with."""
    node = graph.call_function(target, args, kwargs)
    values, keywords = fx.map_arg((args, kwargs), lambda source: source.meta["val"])
    with fake_mode(graph):
        node.meta["val"] = target(*values, **keywords)
    return node


def trace_again(node: fx.Node) -> None:
    """Give a node the shape and dtype that follow from what its operands are now."""
    values, keywords = fx.map_arg((node.args, node.kwargs), lambda source: source.meta["val"])
    with fake_mode(node.graph), enable_python_dispatcher():
        node.meta["val"] = node.target(*values, **keywords)  # type: ignore[operator]


def mask_of(attention: fx.Node) -> fx.Node | None:
    """The mask argument of a `scaled_dot_product_attention` node."""
    mask = attention.kwargs.get("attn_mask")
    return mask if isinstance(mask, fx.Node) else None


def scale_of(attention: fx.Node) -> float:
    """The factor on q k^T, explicit or the default 1 / sqrt(D)."""
    scale = attention.kwargs.get("scale")
    if isinstance(scale, int | float):
        return float(scale)
    return 1.0 / math.sqrt(shape_of(operand(attention, 0))[-1])


def calls(graph: fx.Graph, *targets: Any) -> list[fx.Node]:
    """All call_function nodes of the given targets, in order."""
    return [node for node in graph.nodes if node.op == "call_function" and node.target in targets]


def image_dependent(graph: fx.Graph) -> frozenset[fx.Node]:
    """Nodes whose value depends on the content of an input; sizes taken from its shape do not count."""
    dependent: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            dependent.add(node)
        elif node.op in ("call_function", "output") and node.target is not aten.sym_size.int:
            dependent.update([node] if any(source in dependent for source in node.all_input_nodes) else [])
    return frozenset(dependent)


def evaluate(graph_module: fx.GraphModule, node: fx.Node, known: Mapping[fx.Node, Any]) -> Any:
    """Compute one node from `known` values and the graph's constants, at the example batch.

    Raises:
        InternalError: the node depends on the image and `known` does not cut that dependence.
    """
    values = dict(known)
    for needed in _needed(node, values):
        values[needed] = _evaluate_one(graph_module, needed, values)
    return values[node]


def _needed(node: fx.Node, known: Mapping[fx.Node, Any]) -> Iterator[fx.Node]:
    seen: set[fx.Node] = set(known)
    stack: list[tuple[fx.Node, bool]] = [(node, False)]
    while stack:
        current, ready = stack.pop()
        if ready:
            yield current
        elif current not in seen:
            seen.add(current)
            stack.append((current, True))
            if current.target is not aten.sym_size.int:
                stack.extend((source, False) for source in reversed(current.all_input_nodes))


def _evaluate_one(graph_module: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    if node.op == "get_attr":
        return attribute(graph_module, node)
    if node.op != "call_function":
        raise InternalError(f"{node.name} cannot be evaluated without the image")
    if node.target is aten.sym_size.int:
        return shape_of(operand(node, 0))[integer(node, 1)]
    arguments, keywords = fx.map_arg((node.args, node.kwargs), lambda source: values[source])
    assert callable(node.target)
    with torch.no_grad():
        return node.target(*arguments, **keywords)


def _concrete(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)
