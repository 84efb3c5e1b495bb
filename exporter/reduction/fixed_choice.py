"""Dropping the same patches of every image, which is what the controls do: a match that reads no numbers.

Shapes: B images, N tokens, C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.method import Site


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


def differs(match: Match, own: Match) -> Tensor:
    """The regret of a choice that no score explains: 0 for the method's own match, infinite for any other, (B,)."""
    same_BM = torch.cat([given == defined for given, defined in zip(match[:3], own[:3], strict=True)], dim=1)
    return torch.where(same_BM.all(dim=1), 0.0, torch.inf)
