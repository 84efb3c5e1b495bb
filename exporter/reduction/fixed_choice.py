"""Dropping the same patches of every image, which is what the controls do: a match that reads no numbers.

Shapes: B images, N tokens, C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.method import Site
from exporter.reduction.ranking import argsort_distinct, ascending


def drop_patches(tokens_BNC: Tensor, patches: Sequence[int], at: Site) -> Match:
    """Drop patches by their place among the patches that enter the block; the others keep their order.

    A dropped patch names the nearest one that stays, in the order of the tokens, the earlier one on ties.

    Args:
        tokens_BNC: gives the number of images and of tokens, and the device.
        patches: at.r different numbers in 0..N - prefix - 1, ascending; at least one is missing.
        at: where.
    """
    batch, count, _ = tokens_BNC.shape
    gone = [patch + at.prefix for patch in patches]
    stays = sorted(set(range(count)).difference(gone))
    slot = {position: index for index, position in enumerate(stays)}
    nearest = [slot[min(stays[at.prefix :], key=lambda other: abs(other - each))] for each in gone]

    def rows(numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=tokens_BNC.device).expand(batch, -1)

    return Match(rows(stays), rows(gone), rows(nearest), at.dropped)


def drop_by_rank(rank_BP: Tensor, at: Site) -> Match:
    """Drop the at.r patches of the lowest ranks; the others keep their order.

    A dropped patch names the first token, which is no patch: it is looked up nowhere in a text.

    Args:
        rank_BP: int64, different numbers for each patch.
        at: where; the prefix has a token at least.
    """
    order_BP = argsort_distinct(rank_BP) + at.prefix
    source_BR, rest = order_BP[:, : at.r], ascending(order_BP[:, at.r :])
    prefix_BP = torch.arange(at.prefix, device=rest.device).expand(rest.shape[0], -1)
    kept_BK = torch.cat((prefix_BP, rest), dim=1)
    return Match(kept_BK, source_BR, torch.zeros_like(source_BR), at.dropped)


def differs(match: Match, own: Match) -> Tensor:
    """The regret of a choice that no score explains: 0 for the method's own match, infinite for any other, (B,)."""
    same_BM = torch.cat([given == defined for given, defined in zip(match[:3], own[:3], strict=True)], dim=1)
    return torch.where(same_BM.all(dim=1), 0.0, torch.inf)
