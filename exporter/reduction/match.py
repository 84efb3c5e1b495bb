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
    """

    kept_BK: Tensor
    source_BR: Tensor
    target_BR: Tensor
    dropped: int | Tensor = 0


def record_match(match: Match) -> Tensor:
    """A match as one tensor that an engine can return, (B, K + R + R) int64.

    Where `dropped` differs from image to image, the target of a dropped source is counted on from K.
    """
    kept_BK, source_BR, target_BR, dropped = match
    if isinstance(dropped, Tensor):
        target_BR = target_BR + dropped * kept_BK.shape[1]
    return torch.cat((kept_BK, source_BR, target_BR), dim=1)


def read_match(record: Tensor, r: int, dropped: int = 0) -> Match:
    """Undo `record_match`: r tokens left, of which `dropped` were dropped if that is the same for every image."""
    kept = record.shape[1] - 2 * r
    kept_BK, source_BR, target_BR = torch.split(record, [kept, r, r], dim=1)
    if int(target_BR.max()) < kept:
        return Match(kept_BK, source_BR, target_BR, dropped)
    return Match(kept_BK, source_BR, target_BR % kept, target_BR // kept)


def is_readable(record: Tensor, r: int) -> bool:
    """Whether every entry of a record is in range: positions below K + R, targets below 2K."""
    kept = record.shape[1] - 2 * r
    positions, targets = record[:, :-r], record[:, -r:]
    in_range = (positions < kept + r).all() and (targets < 2 * kept).all() and (record >= 0).all()
    return bool(in_range)


def is_partition(match: Match) -> bool:
    """Whether every token stays or leaves, once."""
    order_BN = torch.cat((match.kept_BK, match.source_BR), dim=1)
    return bool((order_BN.sort(dim=1).values == torch.arange(order_BN.shape[1])).all())


def matched_pairs(match: Match) -> Tensor:
    """The tokens that leave and their targets as input positions: (B, R, 2) int64."""
    target_BR = match.kept_BK.gather(1, match.target_BR)
    return torch.stack((match.source_BR, target_BR), dim=-1)
