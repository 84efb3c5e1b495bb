"""Back to one entry per original token: where each one is after the reductions, and the lookup of its value.

Shapes: B images, N tokens that enter a reduction, K that stay, R that leave, T original tokens (prefix included).

A merged token's value is read by every token that is part of it; a dropped token has the value of the one that its
match names. Nothing scatters: positions are inverted by a sort of distinct integers, and values are looked up.

Source: Bolya and Hoffman, Token Merging for Fast Stable Diffusion, CVPR Workshops 2023, section 3.1 (unmerging).
"""

import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.merge import take
from exporter.reduction.ranking import argsort_distinct


def follow(where_BT: Tensor | None, match: Match) -> Tensor:
    """Where each original token is after one more reduction.

    Args:
        where_BT: int64, where it was before; None before the first reduction.
        match: of the reduction.

    Returns:
        int64 (B, T), positions among the K tokens that stay.
    """
    kept_BK, source_BR, target_BR = match[:3]
    places_BK = torch.arange(kept_BK.shape[1], device=kept_BK.device).expand(kept_BK.shape[0], -1)
    place_BN = torch.cat((places_BK, target_BR), dim=1)
    order_BN = torch.cat((kept_BK, source_BR), dim=1)
    slot_BN = argsort_distinct(order_BN)
    return place_BN.gather(1, slot_BN if where_BT is None else slot_BN.gather(1, where_BT))


def restore(values: Tensor, where_BT: Tensor, *, axis: int, prefix_change: int) -> Tensor:
    """One entry per original token again.

    Args:
        values: (B, ..., K', ...), or (K', B, ...) for an `axis` of 0.
        where_BT: of `follow`.
        axis: with the tokens.
        prefix_change: tokens that `values` has more (positive) or fewer (negative) in front than `where_BT` counts.

    Returns:
        `values` with T + prefix_change tokens on the axis.
    """
    index_BT = _aligned(where_BT, prefix_change)
    rows = values if axis == 1 else values.transpose(1, axis)
    whole = take(rows.flatten(2), index_BT)
    if rows.dim() > 3:
        whole = whole.unflatten(2, rows.shape[2:])
    return whole if axis == 1 else whole.transpose(1, axis)


def _aligned(where_BT: Tensor, prefix_change: int) -> Tensor:
    """Positions in a value that has more or fewer tokens in front; those that are added stay where they are."""
    if prefix_change <= 0:
        return where_BT[:, -prefix_change:] + prefix_change
    added_BP = torch.arange(prefix_change, device=where_BT.device).expand(where_BT.shape[0], -1)
    return torch.cat((added_BP, where_BT + prefix_change), dim=1)
