"""The choice that several methods share: the patches of the highest scores stay.

Shapes: B images, N tokens, K patches that stay, R that leave, D channels.
"""

import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.merge import merging, take
from exporter.reduction.method import Site
from exporter.reduction.padding import NEVER, present
from exporter.reduction.ranking import order_descending
from exporter.reduction.regret import partner_regret, ranking_regret, without_form, worst


def keep_highest(
    score_BN: Tensor,
    metric_BND: Tensor,
    at: Site,
    sizes_BN1: Tensor | None = None,
    *,
    least: int | Tensor = 1,
) -> Match:
    """Rank the patches by score, the lower position first on ties; the first N - prefix - r stay.

    Of a text with padding, as many patches stay as of the text alone, and before padding.

    Args:
        score_BN: of every token; those of the prefix are not read.
        metric_BND: at unit length; each patch that leaves names the one that stays which is most similar to it by
            cosine (that of the higher score on ties). Prefix tokens are no targets.
        at: 0 < r < N - prefix.
        sizes_BN1: 0 for padding; None where there is none.
        least: patches of a text that stay however short it is; of each text (B, 1), or of all.

    Returns:
        A match whose output order is prefix tokens, patches from the highest score down. The sources follow in the same
        order, those that are padding first, so that those of the lowest scores are dropped.
    """
    score_BP = score_BN[:, at.prefix :]
    if sizes_BN1 is None:
        order_BP = order_descending(score_BP) + at.prefix
    else:
        here_BP = present(sizes_BN1[:, at.prefix :])
        ranked_BP = order_descending(torch.where(here_BP, score_BP, NEVER))
        order_BP = ranked_BP.gather(1, _ranks_by_place(here_BP, at.r, least)) + at.prefix
    batch, patches = order_BP.shape
    stay_BK, source_BR = order_BP.split([patches - at.r, at.r], dim=1)
    prefix_BP = torch.arange(at.prefix, device=order_BP.device).expand(batch, -1)
    similarity_BRK = similarity(metric_BND, source_BR, stay_BK)
    if sizes_BN1 is not None:
        similarity_BRK = torch.where(present(take(sizes_BN1, stay_BK)).unsqueeze(1), similarity_BRK, NEVER)
    target_BR = similarity_BRK.max(dim=2).indices + at.prefix
    return Match(torch.cat((prefix_BP, stay_BK), dim=1), source_BR, target_BR, at.dropped)


def _ranks_by_place(here_BP: Tensor, r: int, least: int | Tensor) -> Tensor:
    """Which rank each place of the output order has, where padding ranks last: int64 (B, P).

    Places: patches that stay, padding that stays; of the r that leave padding first, then patches.
    """
    leaving_B1, staying_B1 = _counts(here_BP, r, least)
    slots = here_BP.shape[1] - r
    slot_S, out_R = (torch.arange(length, device=here_BP.device) for length in (slots, r))
    stay_BS = torch.where(slot_S < staying_B1, slot_S, slot_S + leaving_B1)
    padding_B1 = r - leaving_B1
    leave_BR = torch.where(out_R < padding_B1, out_R + leaving_B1 + slots, out_R + staying_B1 - padding_B1)
    return torch.cat((stay_BS, leave_BR), dim=1)


def _counts(here_BP: Tensor, r: int, least: int | Tensor) -> tuple[Tensor, Tensor]:
    """How many patches of each text leave, and how many stay: int64 (B, 1) each."""
    count_B1 = here_BP.long().sum(dim=1, keepdim=True)
    leaving_B1 = (count_B1 - least).clamp(0, r)
    return leaving_B1, count_B1 - leaving_B1


def padded_regret(
    score_BN: Tensor,
    metric_BND: Tensor,
    match: Match,
    at: Site,
    sizes_BN1: Tensor,
    *,
    least: int | Tensor = 1,
) -> Tensor:
    """`keep_regret` of texts with padding, and of what is dropped against what is not, (B,).

    Infinite as well if another number of patches stays.
    """
    if not keeps_prefix(match, at) or int(match.target_BR.min()) < at.prefix:
        return without_form(len(score_BN))
    stay_BK = match.kept_BK[:, at.prefix :]
    stays_BK, leaves_BR = (present(take(sizes_BN1, each)) for each in (stay_BK, match.source_BR))
    here_BP, score_BP = present(sizes_BN1[:, at.prefix :]), score_BN[:, at.prefix :]
    expected_BK = torch.arange(stay_BK.shape[1]) < _counts(here_BP, at.r, least)[1]
    score_BK = torch.where(stays_BK, score_BN.gather(1, stay_BK), torch.inf)
    score_BR = torch.where(leaves_BR, score_BN.gather(1, match.source_BR), -torch.inf)
    merge_count = merging(match)[0].shape[1]
    merging_BM = torch.where(leaves_BR, score_BR, torch.inf)[:, :merge_count]
    chosen_B = score_BR.amax(dim=1) - score_BK.amin(dim=1)
    if merge_count < score_BR.shape[1]:
        lowest_B = torch.cat((score_BK, merging_BM), dim=1).amin(dim=1)
        chosen_B = worst(chosen_B, score_BR[:, merge_count:].amax(dim=1) - lowest_B)
    range_B = score_range(torch.where(here_BP, score_BP, score_BP.amax(dim=1, keepdim=True)))
    similarity_BRK = torch.where(
        stays_BK.unsqueeze(1) & leaves_BR.unsqueeze(2),
        similarity(metric_BND, match.source_BR, stay_BK),
        NEVER,
    )
    found_B = worst(
        chosen_B.clamp_min(0) / range_B, partner_regret(similarity_BRK, match.target_BR - at.prefix)
    )
    return torch.where((stays_BK == expected_BK).all(dim=1), found_B, torch.inf)


def keep_regret(score_BN: Tensor, metric_BND: Tensor, match: Match, at: Site) -> Tensor:
    """By how much a match misses `keep_highest`, apart from the order of those that stay, (B,): see `Method.regret`.

    The larger of two shortfalls: the highest score of a patch that leaves less the lowest of one that stays, of the
    range; and a patch's best cosine less that to its own target. Infinite if a prefix token leaves or is a target.
    """
    if not keeps_prefix(match, at) or int(match.target_BR.min()) < at.prefix:
        return without_form(len(score_BN))
    stay_BK = match.kept_BK[:, at.prefix :]
    similarity_BRK = similarity(metric_BND, match.source_BR, stay_BK)
    return worst(
        chosen_regret(score_BN, stay_BK, at), partner_regret(similarity_BRK, match.target_BR - at.prefix)
    )


def chosen_regret(score_BN: Tensor, chosen_BK: Tensor, at: Site) -> Tensor:
    """`ranking_regret` of a choice of patches, divided by the range of the patches' scores, (B,)."""
    score_BP = score_BN[:, at.prefix :]
    return ranking_regret(score_BP, chosen_BK - at.prefix) / score_range(score_BP)


def score_range(score_BP: Tensor) -> Tensor:
    """The highest score less the lowest, (B,)."""
    return (score_BP.amax(dim=1) - score_BP.amin(dim=1)).clamp_min(1e-12)


def keeps_prefix(match: Match, at: Site) -> bool:
    """Whether the prefix tokens are the first that stay, in order."""
    return bool((match.kept_BK[:, : at.prefix] == torch.arange(at.prefix)).all())


def similarity(metric_BND: Tensor, source_BR: Tensor, stay_BK: Tensor) -> Tensor:
    """Cosines of every source with every patch that stays, (B, R, K)."""
    return take(metric_BND, source_BR) @ take(metric_BND, stay_BK).transpose(1, 2)
