"""How alike the tokens are that merge: a number per image that says how much the merge can lose.

Shapes: B images, H heads, N tokens, D channels of a head, C channels, R tokens that leave, L blocks.
"""

import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.merge import take
from exporter.reduction.method import Method
from exporter.reduction.signals import comparable

FIRST_BLOCKS = 3
"""Merging blocks whose pairs count: measured on the features of a trained ViT-S/14 and 357 photos with r=8, the rank
correlation of their mean with the cosine to the dense vector is 0.46."""


def compared_position(method: Method) -> int:
    """Which of the signals that a method reads tells how alike two tokens are; every method that decides reads one."""
    return next(place for place, name in enumerate(method.reads) if name in ("mean_keys", "keys", "tokens"))


def pair_similarity(compared: Tensor, match: Match) -> Tensor:
    """The mean cosine between the tokens that leave a block and those that stand for them from then on.

    Args:
        compared: the attention's keys (B, H, N, D), which are averaged over heads, or the tokens (B, N, C).
        match: of a block.

    Returns:
        fp32 (B,).
    """
    metric_BND = comparable(compared)
    target_BR = match.kept_BK.gather(1, match.target_BR)
    cosine_BR = (take(metric_BND, match.source_BR) * take(metric_BND, target_BR)).sum(dim=2)
    return cosine_BR.mean(dim=1)


def redundancy(*similarities: Tensor) -> Tensor:
    """The mean of `pair_similarity` over L blocks: L times (B,) to (B, 1), since servers take no rows without axes."""
    return torch.stack(similarities, dim=1).mean(dim=1, keepdim=True)
