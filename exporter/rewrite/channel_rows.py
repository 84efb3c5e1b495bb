"""Which output channels of a linear layer a value consists of.

Between a projection and the attention that uses it there are only views, permutations and selections, and every
library writes them differently. Instead of one rule for each form, the graph is executed on channel numbers, and the
result says where each channel arrived.
"""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from exporter.graph.nodes import add_parameter, attribute, evaluate, shape_of
from exporter.graph.operators import Trait, aten, has

_MOVEMENTS = Trait.MOVEMENT | Trait.RESHAPE | Trait.COPY | Trait.DROPOUT


@dataclass(frozen=True, kw_only=True)
class ProjectedHeads:
    """A value (B, H, N, D) that is nothing but rearranged channels of a linear layer.

    Attributes:
        linear: the layer's node.
        rows_HD: int64, which output channel stands at each head and position.
    """

    linear: fx.Node
    rows_HD: Tensor


def projected_heads(graph_module: fx.GraphModule, value: fx.Node) -> ProjectedHeads | None:
    """Trace `value` (B, H, N, D) back to a linear layer, or None where it is computed in any other way."""
    linear = _root(value)
    if linear is None or len(shape_of(value)) != 4 or not has_parameters(linear):
        return None
    rows = _channels(graph_module, value, linear)
    rows_HD = rows[0, :, 0, :].clone()
    if not bool((rows == rows_HD[None, :, None, :]).all()):
        return None
    return ProjectedHeads(linear=linear, rows_HD=rows_HD)


def has_parameters(layer: fx.Node) -> bool:
    """Whether a layer's weight and bias are parameters, and not computed in the graph."""
    return all(value.op == "get_attr" for value in layer.args[1:3] if isinstance(value, fx.Node))


def replace_parameters(
    graph_module: fx.GraphModule, layer: fx.Node, suffix: str, change: Callable[[Tensor], Tensor]
) -> None:
    """Give a linear layer parameters of its own, each computed from the one that it has."""
    changed = [
        add_parameter(graph_module, layer, f"{each.name}_{suffix}", change(attribute(graph_module, each)))
        for each in layer.args[1:]
        if isinstance(each, fx.Node)
    ]
    layer.args = (layer.args[0], *changed)


def read_elsewhere(graph_module: fx.GraphModule, heads: ProjectedHeads, value: fx.Node) -> bool:
    """Whether anything but `value` reads one of the channels that `value` consists of."""
    own = torch.zeros(shape_of(heads.linear)[-1], dtype=torch.bool)
    own[heads.rows_HD.flatten()] = True
    others = (leaf for leaf in _leaves(heads.linear) if leaf is not value)
    readings = sum(argument is value for user in value.users for argument in user.args)
    return (
        readings > 1
        or len(value.users) > 1
        or any(bool(own[_channels(graph_module, leaf, heads.linear)].any()) for leaf in others)
    )


def _root(value: fx.Node) -> fx.Node | None:
    node = value
    while has(node, _MOVEMENTS) or node.target is operator.getitem:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    return node if node.target is aten.linear.default else None


def _leaves(node: fx.Node) -> Iterator[fx.Node]:
    """Rearrangements of `node` that are read by anything but another rearrangement."""
    moved = [user for user in node.users if has(user, _MOVEMENTS) or user.target is operator.getitem]
    if len(moved) < len(node.users):
        yield node
    for user in moved:
        yield from _leaves(user)


def _channels(graph_module: fx.GraphModule, value: fx.Node, linear: fx.Node) -> Tensor:
    shape = shape_of(linear)
    numbered = torch.arange(shape[-1]).expand(shape).contiguous()
    channels = evaluate(graph_module, value, {linear: numbered})
    assert isinstance(channels, Tensor)
    return channels
