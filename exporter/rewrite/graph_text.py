"""A graph as text: one line per operator, the same text for the same graph.

In: a graph module of any phase. Out: block, name, operator and arguments, dtype, shape and token axis of every value.
"""

import re
from typing import Any

from torch import Tensor, fx

from exporter.anatomy.layout import axis_text
from exporter.anatomy.token_axis import trace_tokens
from exporter.reduction import Site
from exporter.rewrite.annotate_blocks import AXIS_KEY, annotations
from exporter.rewrite.traced_values import traced_values


def graph_text(graph_module: fx.GraphModule) -> str:
    """The graph as text, without its constants; shapes are those at the batch that it was traced with.

    A line is `block_00  linear_3 = linear(cat, w, b)  float32[2, 17, 16] tokens@1`; the block is `-` where none is
    annotated yet.
    """
    graph = graph_module.graph
    values, labels = traced_values(graph_module), annotations(graph)
    axes = annotations(graph, AXIS_KEY) if labels else _traced_axes(graph)
    lines = [
        _line(node, labels.get(node.name, "-"), values[node], axes.get(node.name))
        for node in graph.nodes
        if node.op != "get_attr"
    ]
    return "\n".join(lines) + "\n"


def _traced_axes(graph: fx.Graph) -> dict[str, str]:
    return {node.name: axis_text(layout) for node, layout in trace_tokens(graph).items()}


def _line(node: fx.Node, label: str, value: Any, axis: str | None) -> str:
    if node.op == "output":
        return f"return {_argument(node.args[0])}"
    given = [_argument(argument) for argument in node.args]
    given += [f"{name}={_argument(argument)}" for name, argument in node.kwargs.items()]
    call = "input" if node.op == "placeholder" else f"{_operator(node.target)}({', '.join(given)})"
    kind = " ".join(part for part in (_type(value), axis) if part)
    return f"{label:<8}  {node.name} = {call}  {kind}"


def _operator(target: Any) -> str:
    """`aten.add.Tensor` as `add`; functions by name."""
    packet = getattr(target, "overloadpacket", target)
    return str(getattr(packet, "__name__", packet))


def _argument(value: object) -> str:
    match value:
        case fx.Node():
            return str(value.target) if value.op == "get_attr" else value.name
        case Site():
            return str(value)
        case list() | tuple():
            return f"[{', '.join(map(_argument, value))}]"
        case float():
            return f"{value:.6g}"
        case _:
            return re.sub(r"^torch\.", "", str(value))


def _type(value: Any) -> str:
    match value:
        case Tensor():
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        case list() | tuple():
            return f"({', '.join(map(_type, value))})"
        case _:
            return str(value)
