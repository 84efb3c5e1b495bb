"""grid: a control. It drops r patches of each block at even distances, the same ones of every image."""

from fractions import Fraction

import torch
from torch import Tensor

from exporter.reduction.fixed_choice import differs, drop_by_rank, drop_patches
from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site
from exporter.reduction.padding import present, quotient
from exporter.schedule import all_dropped, all_patches_but_one

_EXACT = 1e-9  # depth is a fraction of integers, which a float may miss from below


def decide(tokens_BNC: Tensor, sizes_BN1: Tensor | None = None, *, at: Site, padded: bool = False) -> Match:
    """Drop patch floor((i + depth) n / r) for i in 0..r-1, of n patches in raster order.

    The depth moves the comb on from block to block, so that the gaps of one block do not fall beside those of the block
    before it, and the patches that stay cover the image evenly. Of a text n - 1 patches are dropped at most.

    Args:
        tokens_BNC: whose number is all that is read.
        sizes_BN1: read with padding only.
        at: 0 < r < N - prefix.
        padded: whether slots may hold padding, of size 0, after the tokens (`reduction.padding`).

    Returns:
        A match whose output order is that of the tokens.
    """
    patches = tokens_BNC.shape[1] - at.prefix
    if padded and sizes_BN1 is not None:
        return drop_by_rank(_ranks(present(sizes_BN1[:, at.prefix :]), at), at)
    return drop_patches(
        tokens_BNC, [int((tooth + at.depth) * patches / at.r + _EXACT) for tooth in range(at.r)], at
    )


def regret(
    tokens_BNC: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    match: Match,
    at: Site,
    padded: bool = False,
) -> Tensor:
    """0 for these patches, infinite for others, (B,)."""
    return differs(match, decide(tokens_BNC, sizes_BN1, at=at, padded=padded))


def _ranks(here_BP: Tensor, at: Site) -> Tensor:
    """The order in which patches leave, int64 (B, P): those that the comb meets, padding, the others."""
    patches, depth = here_BP.shape[1], Fraction(at.depth).limit_denominator(4096)
    position_P = torch.arange(patches, device=here_BP.device)
    tooth_R = torch.arange(at.r, device=here_BP.device)
    count_B1 = here_BP.long().sum(dim=1, keepdim=True)
    leaving_B1 = torch.where(count_B1 > at.r, at.r, count_B1 - 1)
    shifted_R = tooth_R * depth.denominator + depth.numerator
    divisor_B1 = torch.where(leaving_B1 > 0, leaving_B1, 1) * depth.denominator
    met_BR = quotient(shifted_R * count_B1, divisor_B1)
    is_met_BRP = (met_BR.unsqueeze(2) == position_P) & (tooth_R < leaving_B1).unsqueeze(2)
    phase_BP = torch.where(here_BP, torch.where(is_met_BRP.long().sum(dim=1) > 0, 0, 2), 1)
    return phase_BP * patches + position_P


METHOD = Method(
    name="grid",
    reference="none: a control, to see what choosing is worth",
    does="drops r patches at even distances, the same ones of every image",
    licence="none",
    decide=decide,
    regret=regret,
    reads=("tokens",),
    cap=all_patches_but_one,
    dropped=all_dropped,
    proportional=False,
    padded=True,
)
