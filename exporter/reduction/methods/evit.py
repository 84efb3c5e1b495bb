"""EViT: the patches that the class token attends to most stay; the others become one token, or are dropped.

Source: Liang et al., Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations,
ICLR 2022, section 3.2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from exporter.reduction.keep_highest import (
    chosen_regret,
    keep_highest,
    keep_regret,
    keeps_prefix,
    padded_regret,
)
from exporter.reduction.match import Match
from exporter.reduction.merge import merge, take
from exporter.reduction.method import Method, Site
from exporter.reduction.padding import present
from exporter.reduction.regret import without_form
from exporter.reduction.signals import mean_key
from exporter.schedule import all_dropped, keep_of_current, none_dropped

_LEAST = 2


def decide(
    class_row_BN: Tensor,
    keys_BHND: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    at: Site,
    fused: bool,
    padded: bool = False,
) -> Match:
    """Rank the patches by the class token's attention, the lower position first on ties.

    Fused: the last patch of those that stay gives its place to the fused token and becomes a part of it; all that leave
    have it as their target. Otherwise a dropped patch names the patch that stays whose mean key is most similar to its
    own.

    Args:
        class_row_BN: the class token's attention.
        keys_BHND: the attention's keys.
        sizes_BN1: read with padding only.
        at: 0 < r < N - prefix - 1.
        fused: whether those that leave become one token.
        padded: whether slots may hold padding, of size 0 (`reduction.padding`).

    Returns:
        A match whose output order is prefix tokens, patches from the best attended one down.
    """
    sizes_BN1 = sizes_BN1 if padded else None
    match = keep_highest(class_row_BN, mean_key(keys_BHND), at, sizes_BN1, least=_LEAST)
    if not fused:
        return match
    if sizes_BN1 is not None:
        match = match._replace(kept_BK=_worst_last(match.kept_BK, sizes_BN1, at))
    return match._replace(target_BR=torch.full_like(match.source_BR, match.kept_BK.shape[1] - 1))


def combine(
    tokens_BNC: Tensor,
    sizes_BN1: Tensor,
    match: Match,
    class_row_BN: Tensor,
    *signals: Tensor,
    form: str,
    fused: bool,
    padded: bool = False,
) -> tuple[Tensor, Tensor]:
    """The tokens that stay, and where `fused` the sum of a_j x_j over the others, a_j the class token's attention.

    The weights of the sum are not normalised. Every token counts once, the fused one as well. In a text that only
    padding leaves nothing is fused.
    """
    if not fused:
        return merge(tokens_BNC, sizes_BN1, match, form=form, absent=padded)
    stay_BK = match.kept_BK[:, :-1]
    rest_BR = torch.cat((match.kept_BK[:, -1:], match.source_BR), dim=1)
    weights_BR = class_row_BN.gather(1, rest_BR)
    if padded:
        fuses_B1 = present(take(sizes_BN1, match.source_BR)).any(dim=1, keepdim=True)
        weights_BR = torch.cat((torch.where(fuses_B1, weights_BR[:, :1], 1.0), weights_BR[:, 1:]), dim=1)
    weights_B1R = weights_BR.unsqueeze(1).to(tokens_BNC.dtype)
    fused_B1C = weights_B1R @ take(tokens_BNC, rest_BR)
    return torch.cat((take(tokens_BNC, stay_BK), fused_B1C), dim=1), take(sizes_BN1, match.kept_BK)


def regret(
    class_row_BN: Tensor,
    keys_BHND: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    match: Match,
    at: Site,
    fused: bool,
    padded: bool = False,
) -> Tensor:
    """How far a match is from the definition of EViT, (B,): see `Method.regret`.

    By how much more the class token attends to a patch that leaves than to one that stays, of the range; and where
    patches are dropped, the best similarity of one to a patch that stays less that to its own target. The order of
    those that stay changes no number. Infinite if a prefix token leaves, or the fused token has another slot.
    """
    if padded and sizes_BN1 is not None:
        if fused:
            return _fused_regret(class_row_BN, keys_BHND, sizes_BN1, match, at)
        return padded_regret(class_row_BN, mean_key(keys_BHND), match, at, sizes_BN1, least=_LEAST)
    if not fused:
        return keep_regret(class_row_BN, mean_key(keys_BHND), match, at)
    slot = match.kept_BK.shape[1] - 1
    if not keeps_prefix(match, at) or bool((match.target_BR != slot).any()):
        return without_form(len(class_row_BN))
    return chosen_regret(class_row_BN, match.kept_BK[:, at.prefix : slot], at)


def _worst_last(kept_BK: Tensor, sizes_BN1: Tensor, at: Site) -> Tensor:
    """The last patch that stays in the last slot, after padding: there the fused token is made."""
    stay_BS = kept_BK[:, at.prefix :]
    last_B1 = (present(take(sizes_BN1, stay_BS)).long().sum(dim=1, keepdim=True) - 1).clamp_min(0)
    slot_S = torch.arange(stay_BS.shape[1], device=kept_BK.device)
    order_BS = torch.where(slot_S < last_B1, slot_S, slot_S + 1)
    order_BS = torch.where(slot_S == stay_BS.shape[1] - 1, last_B1, order_BS)
    return torch.cat((kept_BK[:, : at.prefix], stay_BS.gather(1, order_BS)), dim=1)


def _fused_regret(
    class_row_BN: Tensor, keys_BHND: Tensor, sizes_BN1: Tensor, match: Match, at: Site
) -> Tensor:
    """`regret` of texts with padding that fuse, (B,); infinite as well if another number of patches stays."""
    slot = match.kept_BK.shape[1] - 1
    if not keeps_prefix(match, at) or bool((match.target_BR != slot).any()):
        return without_form(len(class_row_BN))
    own = decide(class_row_BN, keys_BHND, sizes_BN1, at=at, fused=True, padded=True)
    here, there = (present(take(sizes_BN1, each.kept_BK)) for each in (match, own))
    rest_BR = torch.cat((match.kept_BK[:, slot:], match.source_BR), dim=1)
    score_BK = torch.where(here, class_row_BN.gather(1, match.kept_BK), torch.inf)[:, at.prefix : slot]
    score_BR = torch.where(present(take(sizes_BN1, rest_BR)), class_row_BN.gather(1, rest_BR), -torch.inf)
    missed_B = (score_BR.amax(dim=1) - score_BK.amin(dim=1)).clamp_min(0)
    fuses_B = present(take(sizes_BN1, match.source_BR)).any(dim=1)
    return torch.where((here == there).all(dim=1), torch.where(fuses_B, missed_B, 0.0), torch.inf)


def _cap(tokens: int, prefix: int) -> int:
    """Two are left: the fused token and a patch, or without fusing two patches."""
    return max(tokens - prefix - _LEAST, 0)


def _dropped(removed: int, block: int, blocks: int, *, fused: bool) -> int:
    """The fused token is made of all that leave."""
    return none_dropped(removed, block, blocks) if fused else all_dropped(removed, block, blocks)


def _keep(rate: float, stage: int, initial: int, current: int, *, fused: bool) -> int:
    """The fused token comes on top of the rate."""
    return keep_of_current(rate, stage, initial, current) + fused


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of EViT.

    Attributes:
        fused: whether the patches that leave become one token, the sum of each times the class token's attention to it;
            otherwise they are dropped.
    """

    fused: bool = True


METHOD = Method(
    name="evit",
    reference="Liang et al., Not All Patches are What You Need, ICLR 2022",
    does="keeps the patches that the class token attends to most; the others become one token, or are dropped",
    licence="Apache-2.0",
    training="fine-tuned by the authors; works with any weights, at a lower accuracy",
    decide=decide,
    regret=regret,
    reads=("class_row", "keys"),
    combine=combine,
    cap=_cap,
    dropped=_dropped,
    keep=_keep,
    proportional=False,
    options=Options,
    padded=True,
)
