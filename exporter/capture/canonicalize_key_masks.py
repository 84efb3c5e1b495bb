"""Pass: give masks over padding one form."""

import math
from collections.abc import Container
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.ids import of_ids_alone, on_trials
from exporter.graph.nodes import add_call, calls, image_dependent, mask_of, optional_operand, shape_of
from exporter.graph.operators import aten, sdpa

_FORBIDS = -1e3
"""A bias below this rules attention out: libraries add -10000, a type's minimum or -inf."""


@dataclass(frozen=True)
class CanonicalizeKeyMasks(GraphPass):
    """Turn masks that say which keys are padding into (B, 1, 1, N) booleans, one for all attentions that share it.

    Given: `scaled_dot_product_attention(q, k, v, mask)` whose mask is computed from token ids or from a mask that the
    model takes, and says the same for every query and head: boolean, or 0 and large negative numbers that are added.
    Result: the same with a boolean mask that has one row; where a bias of positions is added to it,
    `where(mask, bias, -inf)`.

    Declines where the mask depends on the query, as a causal one does, or weighs keys.
    """

    name: ClassVar[str] = "canonicalize_key_masks"

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Replace every such mask."""
        graph = graph_module.graph
        alone, declined = of_ids_alone(graph), []
        dependent = image_dependent(graph)
        rows: dict[fx.Node, fx.Node] = {}
        attentions = [node for node in calls(graph, sdpa) if mask_of(node) in alone]
        for node in attentions:
            given = mask_of(node)
            assert given is not None
            mask, bias = _without_bias(given, dependent)
            if mask not in rows and (reason := _objection(graph_module, mask)):
                declined.append(f"{node.name}: {reason}")
                continue
            if mask not in rows:
                rows[mask] = _row(mask)
            with graph.inserting_before(node):
                whole = (
                    rows[mask]
                    if bias is None
                    else add_call(graph, aten.where.ScalarOther, rows[mask], bias, -math.inf)
                )
            node.kwargs = {**node.kwargs, "attn_mask": whole}
        return PassOutcome(name=self.name, rewrites=len(rows), declined=tuple(declined))


def _without_bias(mask: fx.Node, dependent: Container[fx.Node]) -> tuple[fx.Node, fx.Node | None]:
    """A mask less the bias that is the same for every text, and that bias."""
    if mask.target is aten.add.Tensor:
        for place in (0, 1):
            bias, other = optional_operand(mask, place), optional_operand(mask, 1 - place)
            if bias is not None and other is not None and bias not in dependent:
                return other, bias
    return mask, None


def _objection(graph_module: fx.GraphModule, mask: fx.Node) -> str | None:
    """Why a mask does not only say which keys are padding."""
    if len(shape_of(mask)) != 4:
        return f"its mask has {len(shape_of(mask))} axes, expected 4"
    for (values,) in on_trials(graph_module, mask):
        if not torch.equal(values, values[:, :1, :1].expand_as(values)):
            return "its mask is another one for every query or head"
        if values.dtype != torch.bool and not _only_forbids(values):
            return "its mask weighs keys"
    return None


def _only_forbids(values: Tensor) -> bool:
    return bool(((values == 0) | (values < _FORBIDS)).all())


def _row(mask: fx.Node) -> fx.Node:
    row = mask
    for axis in (1, 2):
        if shape_of(row)[axis] != 1:
            row = _after(row, aten.slice.Tensor, axis, 0, 1)
    return row if row.meta["val"].dtype == torch.bool else _after(row, aten.gt.Scalar, _FORBIDS)


def _after(node: fx.Node, target: object, *arguments: object) -> fx.Node:
    with node.graph.inserting_after(node):
        return add_call(node.graph, target, node, *arguments)
