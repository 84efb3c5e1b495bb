"""random: a control. It drops r patches of each block by lot, the same ones of every image."""

from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from exporter.reduction.fixed_choice import differs, drop_by_rank, drop_patches
from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site
from exporter.reduction.padding import present
from exporter.schedule import all_dropped, all_patches_but_one


def decide(
    tokens_BNC: Tensor, sizes_BN1: Tensor | None = None, *, at: Site, seed: int, padded: bool = False
) -> Match:
    """Drop the r patches whose lots come first, of a text of n patches n - 1 at most.

    A patch's lot is the SHA-256 of the seed, the block's depth and the patch's number, so that a seed means the same
    patches with every version of every library.

    Args:
        tokens_BNC: whose number is all that is read.
        sizes_BN1: read with padding only.
        at: 0 < r < N - prefix.
        seed: of the lots.
        padded: whether slots may hold padding, of size 0, after the tokens (`reduction.padding`).

    Returns:
        A match whose output order is that of the tokens.
    """
    patches = range(tokens_BNC.shape[1] - at.prefix)
    by_lot = sorted(patches, key=lambda patch: sha256(f"{seed} {at.depth:.6f} {patch}".encode()).digest())
    if not padded or sizes_BN1 is None:
        return drop_patches(tokens_BNC, sorted(by_lot[: at.r]), at)
    lots = {patch: lot for lot, patch in enumerate(by_lot)}
    lot_P = torch.tensor([lots[patch] for patch in patches], device=tokens_BNC.device)
    here_BP = present(sizes_BN1[:, at.prefix :])
    last_B1 = torch.where(here_BP, lot_P, -1).amax(dim=1, keepdim=True)
    phase_BP = torch.where(here_BP, torch.where(lot_P == last_B1, 2, 0), 1)
    return drop_by_rank(phase_BP * len(patches) + lot_P, at)


def regret(
    tokens_BNC: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    match: Match,
    at: Site,
    seed: int,
    padded: bool = False,
) -> Tensor:
    """0 for the patches of this seed, infinite for others, (B,)."""
    return differs(match, decide(tokens_BNC, sizes_BN1, at=at, seed=seed, padded=padded))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of the random control.

    Attributes:
        seed: which patches are drawn.
    """

    seed: int = 0


METHOD = Method(
    name="random",
    reference="none: a control, to see what choosing is worth",
    does="drops r patches that were drawn by lot, the same ones of every image",
    licence="none",
    decide=decide,
    regret=regret,
    reads=("tokens",),
    cap=all_patches_but_one,
    dropped=all_dropped,
    proportional=False,
    padded=True,
    options=Options,
)
