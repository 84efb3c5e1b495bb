"""A method's decision, and its record: which tokens stay, which leave, and what becomes of those.

Shapes: B images, N tokens, K kept, R that leave (K + R = N).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Match(NamedTuple):
    """Which tokens stay, which leave, and into which each of these merges.

    A dropped token names a target as well, the one that stands for it from then on: the match is a partition whatever
    becomes of the tokens.

    Attributes:
        kept_BK: int64 positions of the tokens that stay, in output order.
        source_BR: int64 positions of the tokens that leave.
        target_BR: for each source, the int64 index into `kept_BK` of its target.
        dropped: which sources are dropped and not merged: the last ones, this number in every image; or int64 (B, R), 1
            where a source is dropped.
        absent: int64 (B, K), 1 where a slot stays empty: the token that is named there stands for nothing from then
            on, and is no target. None where no slot does.
    """

    kept_BK: Tensor
    source_BR: Tensor
    target_BR: Tensor
    dropped: int | Tensor = 0
    absent: Tensor | None = None


def record_match(match: Match) -> Tensor:
    """A match as one tensor that an engine can return, (B, K + R + R) int64.

    Where `dropped` differs from image to image, the target of a dropped source is counted on from K; the position of
    an absent token is counted on from N.
    """
    kept_BK, source_BR, target_BR, dropped, absent = match
    if isinstance(dropped, Tensor):
        target_BR = target_BR + dropped * kept_BK.shape[1]
    if absent is not None:
        kept_BK = kept_BK + absent * (kept_BK.shape[1] + source_BR.shape[1])
    return torch.cat((kept_BK, source_BR, target_BR), dim=1)


def read_match(record: Tensor, r: int, dropped: int = 0, *, absent: bool = False) -> Match:
    """Undo `record_match`.

    Args:
        record: of a match.
        r: tokens that left.
        dropped: how many of them were dropped, if that is the same for every image.
        absent: whether slots may be empty.
    """
    kept = record.shape[1] - 2 * r
    kept_BK, source_BR, target_BR = torch.split(record, [kept, r, r], dim=1)
    absent_BK = kept_BK // (kept + r) if absent else None
    kept_BK = kept_BK % (kept + r)
    if int(target_BR.max()) < kept:
        return Match(kept_BK, source_BR, target_BR, dropped, absent_BK)
    return Match(kept_BK, source_BR, target_BR % kept, target_BR // kept, absent_BK)


def is_readable(record: Tensor, r: int, *, absent: bool) -> bool:
    """Whether every entry of a record is in range: positions below N = K + R, targets below 2K.

    Args:
        record: of a match.
        r: tokens that left.
        absent: whether slots may be absent, so that the positions of the tokens that stay are below 2N.
    """
    kept = record.shape[1] - 2 * r
    limits = ((kept, (kept + r) * (1 + absent)), (r, kept + r), (r, 2 * kept))
    parts = torch.split(record, [size for size, _ in limits], dim=1)
    below = all(bool((part < limit).all()) for part, (_, limit) in zip(parts, limits, strict=True))
    return below and bool((record >= 0).all())


def is_partition(match: Match) -> bool:
    """Whether every token stays or leaves, once."""
    order_BN = torch.cat((match.kept_BK, match.source_BR), dim=1)
    return bool((order_BN.sort(dim=1).values == torch.arange(order_BN.shape[1])).all())


def matched_pairs(match: Match) -> Tensor:
    """The tokens that leave and their targets as input positions: (B, R, 2) int64."""
    target_BR = match.kept_BK.gather(1, match.target_BR)
    return torch.stack((match.source_BR, target_BR), dim=-1)
