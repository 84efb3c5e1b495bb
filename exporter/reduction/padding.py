"""Texts of different length in one batch: padding takes part in no decision, and stands after the tokens.

Of a text with fewer tokens than there are slots, as many tokens merge as the method would merge of the text alone, at
most r; the other slots that leave are padding. A method chooses among the tokens that are there as it does without
padding, and puts them first, so that every block finds a text at the front of its slots. The token that EViT fuses
stands in the last slot.

Shapes: B texts, N slots, K that stay.
"""

import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.ranking import argsort_distinct, ascending

NEVER = -1e4
"""The similarity of a pair with padding, and the energy of padding: below whatever tokens have."""


def present(sizes_BN1: Tensor) -> Tensor:
    """Which slots hold a token, bool (B, N)."""
    return sizes_BN1.squeeze(2) > 0


def quotient(number: Tensor, divisor: Tensor | int) -> Tensor:
    """Integers, none of them negative, divided and rounded down, in the operator that engines have for it."""
    return torch.div(number, divisor, rounding_mode="trunc")


def filled_slots(*sections: tuple[int, Tensor]) -> Tensor:
    """Which slots that stay will hold a token: int64 ones and zeros (B, K).

    Args:
        sections: consecutive slots, of which the first ones are filled: how many slots, and (B,) how many of them,
            where less than none is none and more than all is all.
    """
    parts = [
        (torch.arange(slots, device=filled_B.device) < filled_B.unsqueeze(1)).long()
        for slots, filled_B in sections
    ]
    return torch.cat(parts, dim=1)


def compact(match: Match, filled_BK: Tensor) -> Match:
    """The same match with the slots that will hold a token first, in order, and those of padding after them."""
    order_BK = _order(filled_BK)
    return _reordered(match, order_BK, argsort_distinct(order_BK))


def spread(match: Match, filled_BK: Tensor) -> Match:
    """Undo `compact`."""
    order_BK = _order(filled_BK)
    return _reordered(match, argsort_distinct(order_BK), order_BK)


def _order(filled_BK: Tensor) -> Tensor:
    """Slots in the order in which `compact` puts them."""
    count = filled_BK.shape[1]
    return ascending((1 - filled_BK) * count + torch.arange(count, device=filled_BK.device)) % count


def _reordered(match: Match, order_BK: Tensor, place_BK: Tensor) -> Match:
    """Slots in another order; `place_BK` is where each of them goes."""
    target_BR = place_BK.gather(1, match.target_BR)
    return match._replace(kept_BK=match.kept_BK.gather(1, order_BK), target_BR=target_BR)
