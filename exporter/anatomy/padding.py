"""Texts of different length in one batch: the mask over padding, and the means that leave padding out.

In: a captured graph and its layouts. Out: the mask that says which tokens are there, and `MaskedMean`s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from exporter.anatomy.layout import Layout, TokenAxis
from exporter.anatomy.token_rules import reduced_axes
from exporter.graph.ids import of_ids_alone, on_trials
from exporter.graph.nodes import calls, mask_of, operand, optional_operand, shape_of
from exporter.graph.operators import aten


@dataclass(frozen=True, kw_only=True)
class MaskedMean:
    """A mean over the tokens that are there: `sum(values * mask) / sum(mask)`.

    Attributes:
        result: the quotient.
        values: (B, N, C).
        total: the sum over the tokens.
    """

    result: fx.Node
    values: fx.Node
    total: fx.Node


@dataclass(frozen=True, kw_only=True)
class Padding:
    """What is known of the texts' lengths.

    Attributes:
        mask: which tokens are there, boolean (B, 1, 1, N), as all attentions have it; None where all tokens are.
        means: over the tokens that are there.
    """

    mask: fx.Node | None = None
    means: tuple[MaskedMean, ...] = ()


def find_padding(
    graph_module: fx.GraphModule, layouts: Mapping[fx.Node, Layout], sites: Sequence[fx.Node]
) -> Padding:
    """The mask over padding that all of these attentions have, and what reads it besides them."""
    masks = {parts_of_mask(site)[0] for site in sites}
    mask = masks.pop()
    if masks or mask is None or not _is_key_mask(mask):
        return Padding()
    alone = of_ids_alone(graph_module.graph)
    quotients = calls(graph_module.graph, aten.div.Tensor)
    found = (_masked_mean(node, layouts) for node in quotients if optional_operand(node, 1) in alone)
    means = (
        mean
        for mean, weights in filter(None, found)
        if weights in alone and _counts(graph_module, mean, weights, mask)
    )
    return Padding(mask=mask, means=tuple(means))


def parts_of_mask(attention: fx.Node) -> tuple[fx.Node | None, fx.Node | None]:
    """The mask of an attention, and the bias of positions that is added where it allows attention.

    They are one value where the attention has a bias and a mask over padding (`capture.canonicalize_key_masks`).
    """
    mask = mask_of(attention)
    if mask is not None and mask.target is aten.where.ScalarOther and _is_key_mask(operand(mask, 0)):
        return operand(mask, 0), operand(mask, 1)
    return mask, None


def _is_key_mask(mask: fx.Node) -> bool:
    """Whether a mask has the form that `capture.canonicalize_key_masks` gives to masks over padding."""
    shape = shape_of(mask)
    is_row = mask.meta["val"].dtype == torch.bool and len(shape) == 4 and shape[1:3] == (1, 1)
    return is_row and mask in of_ids_alone(mask.graph)


def _masked_mean(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> tuple[MaskedMean, fx.Node] | None:
    """The mean that a quotient may be, with its weights."""
    total = optional_operand(node, 0)
    if total is None or total.target is not aten.sum.dim_IntList:
        return None
    product = operand(total, 0)
    factors = product.all_input_nodes
    if product.target is not aten.mul.Tensor or len(factors) != 2 or reduced_axes(total) != (1,):
        return None
    for values, weights in (factors, factors[::-1]):
        layout = layouts.get(values)
        if (
            isinstance(layout, TokenAxis)
            and layout.is_plain
            and layout.axis == 1
            and len(shape_of(values)) == 3
        ):
            return MaskedMean(result=node, values=values, total=total), weights
    return None


def _counts(graph_module: fx.GraphModule, mean: MaskedMean, weights: fx.Node, mask: fx.Node) -> bool:
    """Whether the weights are 1 for every token that is there and 0 for padding, and the divisor is their sum."""
    divisor = operand(mean.result, 1)
    for present, weight, count in on_trials(graph_module, mask, weights, divisor):
        expected = present[:, 0, 0, :, None].to(weight.dtype)
        if weight.dim() != 3 or not torch.equal(expected.expand_as(weight), weight):
            return False
        total = expected.sum(dim=1)
        if not torch.equal(total.expand_as(count.reshape(len(total), -1)), count.reshape(len(total), -1)):
            return False
    return True
