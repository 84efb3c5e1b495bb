"""Passes that give every attention one form: a `scaled_dot_product_attention` node without needless masks."""

from collections.abc import Container
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.ids import of_ids_alone
from exporter.graph.nodes import (
    add_call,
    axis_of,
    calls,
    evaluate,
    image_dependent,
    integer,
    is_tensor,
    mask_of,
    operand,
    optional_operand,
    shape_of,
)
from exporter.graph.operators import Trait, aten, has, sdpa

_SOFTMAXES = (aten.softmax.int, aten._softmax.default)
_SAME_VALUES = Trait.CAST | Trait.COPY | Trait.DROPOUT


@dataclass(frozen=True)
class CanonicalizeAttention(GraphPass):
    """Turn attention written out into one node, and give all such nodes the same arguments.

    Given: `matmul(softmax(matmul(q, k^T) * scale [+ mask]), v)`, with q, k, v of (..., N, D); two masks, where one is
    computed from token ids alone.
    Result: `scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)`; everything but q, k, v by name.

    Declines where the probabilities are read by anything but the product with v.
    """

    name: ClassVar[str] = "canonicalize_attention"

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Replace every such chain; parts without another reader are removed."""
        rewrites, declined = sum(map(_name_arguments, calls(graph_module.graph, sdpa))), []
        alone = of_ids_alone(graph_module.graph)
        for softmax in calls(graph_module.graph, *_SOFTMAXES):
            reason = _fuse(softmax, alone)
            if reason is None:
                rewrites += 1
            else:
                declined.append(f"{softmax.name}: {reason}")
        return PassOutcome(name=self.name, rewrites=rewrites, declined=tuple(declined))


@dataclass(frozen=True)
class FoldConstantMasks(GraphPass):
    """Drop attention masks that are known at compile time to change nothing.

    Given: `scaled_dot_product_attention(q, k, v, mask)` where mask is computed without the image and is all true
    (boolean) or all zero (additive).
    Result: the same without mask.
    """

    name: ClassVar[str] = "fold_constant_masks"

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Evaluate each constant mask once."""
        dependent, rewrites = image_dependent(graph_module.graph), 0
        for node in calls(graph_module.graph, sdpa):
            mask = mask_of(node)
            if mask is not None and mask not in dependent and _is_neutral(evaluate(graph_module, mask, {})):
                node.kwargs = {key: value for key, value in node.kwargs.items() if key != "attn_mask"}
                rewrites += 1
        return PassOutcome(name=self.name, rewrites=rewrites)


def _name_arguments(attention: fx.Node) -> bool:
    named = dict(zip(("attn_mask", "dropout_p", "is_causal"), attention.args[3:], strict=False))
    attention.args, attention.kwargs = attention.args[:3], {**named, **attention.kwargs}
    return bool(named)


def _fuse(softmax: fx.Node, alone: Container[fx.Node]) -> str | None:
    """Replace the attention around a softmax by one node, or say why there is none."""
    logits = operand(softmax, 0)
    if axis_of(integer(softmax, 1), len(shape_of(logits))) != len(shape_of(logits)) - 1:
        return "the softmax is not over the last axis"
    product = _product_with_values(softmax)
    if isinstance(product, str):
        return product
    scores, masks, scale = _peel_logits(logits, alone)
    if not has(scores, Trait.MATMUL):
        return f"its logits come from {scores.target}, not from a matrix product"
    with softmax.graph.inserting_before(product):
        key = _transposed(operand(scores, 1))
        mask = add_call(softmax.graph, aten.add.Tensor, *masks) if len(masks) > 1 else next(iter(masks), None)
        fused = softmax.graph.call_function(
            sdpa, (operand(scores, 0), key, operand(product, 1)), {"attn_mask": mask, "scale": scale}
        )
    fused.meta["val"] = product.meta["val"]
    product.replace_all_uses_with(fused)
    return None


def _product_with_values(softmax: fx.Node) -> fx.Node | str:
    node = softmax
    while len(node.users) == 1:
        (user,) = node.users
        if has(user, Trait.MATMUL) and user.args[0] is node:
            return user
        if not has(user, _SAME_VALUES):
            return f"its probabilities go into {user.name} ({user.target})"
        node = user
    return f"its probabilities are read in {len(node.users)} places"


def _peel_logits(logits: fx.Node, alone: Container[fx.Node]) -> tuple[fx.Node, list[fx.Node], float]:
    """Undo `* scale`, `/ scale` and `+ mask` from the softmax back to the matrix product."""
    node, masks, scale = logits, list[fx.Node](), 1.0
    while True:
        first = optional_operand(node, 0)
        second = node.args[1] if len(node.args) > 1 else None
        if first is None:
            return node, masks, scale
        if has(node, _SAME_VALUES):
            node = first
        elif node.target in (aten.mul.Tensor, aten.mul.Scalar) and isinstance(second, int | float):
            scale, node = scale * second, first
        elif node.target in (aten.div.Tensor, aten.div.Scalar) and isinstance(second, int | float):
            scale, node = scale / second, first
        elif (
            node.target is aten.add.Tensor
            and (not masks or (len(masks) == 1 and (masks[0] in alone) != (second in alone)))
            and scale == 1.0
            and isinstance(second, fx.Node)
            and is_tensor(second)
        ):
            node, masks = first, [second, *masks]
        else:
            return node, masks, scale


def _transposed(node: fx.Node) -> fx.Node:
    """`node` with its last two axes swapped; undoes a transpose rather than adding a second one."""
    if node.target is aten.transpose.int:
        ndim = len(shape_of(node))
        if {axis_of(integer(node, 1), ndim), axis_of(integer(node, 2), ndim)} == {ndim - 2, ndim - 1}:
            return operand(node, 0)
    swapped = node.graph.call_function(aten.transpose.int, (node, -2, -1))
    swapped.meta["val"] = node.meta["val"].transpose(-2, -1)
    return swapped


def _is_neutral(mask: torch.Tensor) -> bool:
    return bool(mask.all()) if mask.dtype == torch.bool else not bool(mask.any())
