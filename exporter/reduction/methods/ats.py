"""ATS: sample the tokens by how much the class token reads of them; what is drawn more than once leaves a slot empty.

The number of tokens that stay differs from image to image. A block here has as many slots as its schedule leaves
tokens; where fewer are drawn, the other slots are absent: nothing attends to them and no mean counts them, so that the
numbers are those of the method without slots. Where more are drawn, those of the highest scores stay: `needed` counts
them.

Source: Fayyaz et al., Adaptive Token Sampling for Efficient Vision Transformers, ECCV 2022, section 3; the order of the
scores and the samples are those of its published code.

Shapes: P patches, S samples, K kept, R that leave.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.merge import merge, take
from exporter.reduction.method import Method, Site
from exporter.reduction.ranking import ascending, order_descending
from exporter.reduction.regret import partner_regret, without_form, worst
from exporter.reduction.signals import mean_key, significance
from exporter.schedule import all_dropped, all_patches_but_one

_TINY = 1e-30


def decide(
    class_row_BN: Tensor, values_BHND: Tensor, sizes_BN1: Tensor, keys_BHND: Tensor, *, at: Site, order: str
) -> Match:
    """Keep the patches that are drawn, in order of position, then empty slots.

    The score of a patch is its significance (`signals.significance`). A sample draws the patch whose cumulative score
    is nearest to it, the first of those that are equally near. Of more than K patches drawn those of the highest scores
    stay (the lower position on ties).

    Args:
        class_row_BN: the class token's attention.
        values_BHND: the attention's values.
        sizes_BN1: 0 for an absent token, which is never drawn.
        keys_BHND: a token that leaves names the patch that stays whose mean key is most similar to its own.
        at: as many patches stay as there are slots.
        order: in which scores are summed: `ascending`, as the published code has it, with as many samples as the model
            has patches at first; or by position (`token`), as the paper has it, with as many samples as slots.
    """
    scores_BP, present_BP = significance(class_row_BN, values_BHND, at.prefix), _present(sizes_BN1, at)
    ranked_BP = order_descending(scores_BP)
    sequence_BP, distance_BSP = _distances(scores_BP, present_BP, ranked_BP, at, order)
    drawn_BP = _drawn(sequence_BP, distance_BSP)
    patches = scores_BP.shape[1]
    places_P = torch.arange(patches, device=scores_BP.device)
    missed_BP = (1 - drawn_BP).gather(1, ranked_BP) * patches + places_P
    ranks_BP = ascending(missed_BP) % patches
    stay_BK, leave_BR = ranked_BP.gather(1, ranks_BP).split([patches - at.r, at.r], dim=1)
    slots_BK = ascending(stay_BK + (1 - drawn_BP.gather(1, stay_BK)) * patches)
    absent_BK = (slots_BK >= patches).long()
    kept_BK = slots_BK - absent_BK * patches + at.prefix
    source_BR = leave_BR + at.prefix
    similarity_BRK = _similarity(keys_BHND, source_BR, kept_BK)
    target_BR = similarity_BRK.masked_fill(absent_BK.unsqueeze(1) > 0, -2.0).max(dim=2).indices + at.prefix
    prefix_BP = torch.arange(at.prefix, device=kept_BK.device).expand(len(kept_BK), -1)
    return Match(
        torch.cat((prefix_BP, kept_BK), dim=1),
        source_BR,
        target_BR,
        at.dropped,
        torch.cat((torch.zeros_like(prefix_BP), absent_BK), dim=1),
    )


def needed(
    class_row_BN: Tensor, values_BHND: Tensor, sizes_BN1: Tensor, keys_BHND: Tensor, *, at: Site, order: str
) -> Tensor:
    """How many tokens each image draws, prefix tokens included: int64 (B,)."""
    scores_BP, present_BP = significance(class_row_BN, values_BHND, at.prefix), _present(sizes_BN1, at)
    distances = _distances(scores_BP, present_BP, order_descending(scores_BP), at, order)
    return _drawn(*distances).sum(dim=1) + at.prefix


def combine(
    tokens_BNC: Tensor, sizes_BN1: Tensor, match: Match, *signals: Tensor, form: str, order: str
) -> tuple[Tensor, Tensor]:
    """Drop what leaves; what stands in an absent slot has size 0 from then on."""
    tokens_BKC, sizes_BK1 = merge(tokens_BNC, sizes_BN1, match, form=form, absent=True)
    assert match.absent is not None
    return tokens_BKC, sizes_BK1 * (1 - match.absent).unsqueeze(2)


def regret(
    class_row_BN: Tensor,
    values_BHND: Tensor,
    sizes_BN1: Tensor,
    keys_BHND: Tensor,
    *,
    match: Match,
    at: Site,
    order: str,
) -> Tensor:
    """How far a match is from the definition of ATS, (B,): the larger of two shortfalls.

    That of the drawing (`_drawing_regret`), and a token's best similarity to a patch that stays less that to its own
    partner. Infinite if tokens are not in the output order of `decide`, or a target is absent.
    """
    if match.absent is None or not _has_form(match, at):
        return without_form(len(class_row_BN))
    scores_BP, present_BP = significance(class_row_BN, values_BHND, at.prefix), _present(sizes_BN1, at)
    sequence_BP, distance_BSP = _distances(scores_BP, present_BP, order_descending(scores_BP), at, order)
    absent_BK, kept_BK = match.absent[:, at.prefix :], match.kept_BK[:, at.prefix :]
    stays_BP = torch.zeros_like(sequence_BP).scatter(1, kept_BK - at.prefix, 1 - absent_BK)
    similarity_BRK = _similarity(keys_BHND, match.source_BR, kept_BK)
    similarity_BRK = similarity_BRK.masked_fill(absent_BK.unsqueeze(1) > 0, -2.0)
    return worst(
        _drawing_regret(
            scores_BP.gather(1, sequence_BP),
            distance_BSP,
            stays_BP.gather(1, sequence_BP) > 0,
            reorders=order != "token",
            slots=kept_BK.shape[1],
        ),
        partner_regret(similarity_BRK, match.target_BR - at.prefix),
    )


def _drawing_regret(
    scores_BP: Tensor, distance_BSP: Tensor, stays_BP: Tensor, *, reorders: bool, slots: int
) -> Tensor:
    """By how much a set of patches misses the definition, (B,), in units of the sum of all scores, which is 1.

    A sample is served by a patch that is as near as the one that it draws or, where patches are put in the order of
    their scores, that scores the same (differences of scores are of their range). The largest of three shortfalls: of a
    sample, that of the patch that serves it best of those that stay, or, where no slot is empty, by how much more it
    scores than one that stays; of a patch that stays, that of the sample that it serves best; and, where more or fewer
    patches stay than are drawn, the distance by which that many samples miss their second nearest patch.

    Args:
        scores_BP: in the order in which they are summed.
        distance_BSP: of every sample, in that order.
        stays_BP: bool, likewise.
        reorders: whether that is the order of the scores.
        slots: patches that can stay.
    """
    nearest_BS, drawn_BS = distance_BSP.min(dim=2)
    cost_BSP = distance_BSP - nearest_BS.unsqueeze(2)
    range_B1 = (scores_BP.amax(dim=1, keepdim=True) - scores_BP.amin(dim=1, keepdim=True)).clamp_min(_TINY)
    scores_BP = scores_BP / range_B1
    drawn_score_BS = scores_BP.gather(1, drawn_BS)
    if reorders:
        cost_BSP = torch.minimum(cost_BSP, (drawn_score_BS.unsqueeze(2) - scores_BP.unsqueeze(1)).abs())
    missed_BS = cost_BSP.masked_fill(~stays_BP.unsqueeze(1), torch.inf).amin(dim=2)
    staying_B = stays_BP.sum(dim=1)
    lowest_B1 = scores_BP.masked_fill(~stays_BP, torch.inf).amin(dim=1, keepdim=True)
    outdone_BS = (drawn_score_BS - lowest_B1).clamp_min(0)
    is_full_B1 = (staying_B == slots).unsqueeze(1)
    missed_BS = torch.where(is_full_B1, torch.minimum(missed_BS, outdone_BS), missed_BS)
    extra_BP = cost_BSP.amin(dim=1).masked_fill(~stays_BP, 0.0)
    drawn_BP = torch.zeros_like(scores_BP).scatter(1, drawn_BS, 1.0)
    surplus_B = (staying_B - drawn_BP.sum(dim=1).clamp_max(slots).long()).abs()
    margin_BS = distance_BSP.topk(2, dim=2, largest=False).values.diff(dim=2).squeeze(2).sort(dim=1).values
    flips_B1 = (surplus_B.unsqueeze(1) - 1).clamp(0, margin_BS.shape[1] - 1)
    count_B = margin_BS.gather(1, flips_B1).squeeze(1) * (surplus_B > 0)
    return worst(missed_BS.amax(dim=1), extra_BP.amax(dim=1), count_B)


def _present(sizes_BN1: Tensor, at: Site) -> Tensor:
    """Which patches stand for something, bool (B, P)."""
    return sizes_BN1[:, at.prefix :, 0] > 0


def _distances(
    scores_BP: Tensor, present_BP: Tensor, ranked_BP: Tensor, at: Site, order: str
) -> tuple[Tensor, Tensor]:
    """Patches in the order in which scores are summed, and how far every sample is from their sums.

    Returns:
        int64 (B, P), and fp32 (B, S, P) in that order, 2 for an absent patch.
    """
    if order == "token":
        sequence_BP = torch.arange(scores_BP.shape[1], device=scores_BP.device).expand_as(scores_BP)
        samples = scores_BP.shape[1] - at.r
    else:
        sequence_BP, samples = ranked_BP.flip(1), at.tokens - at.prefix
    present_BP = present_BP.gather(1, sequence_BP)
    sum_BP = scores_BP.gather(1, sequence_BP).cumsum(dim=1)
    steps_S = torch.arange(samples, device=scores_BP.device).float()
    if order == "token":
        sample_BS = ((2 * steps_S + 1) / (2 * samples)).expand(len(sum_BP), -1)
    else:
        first_B1 = torch.where(present_BP, sum_BP, 1.0).amin(dim=1, keepdim=True)
        sum_BP = (sum_BP - first_B1) / (sum_BP[:, -1:] - first_B1).clamp_min(_TINY)
        least_B1 = torch.where(present_BP & (sum_BP > 0), sum_BP, 1.0).amin(dim=1, keepdim=True)
        sample_BS = least_B1 + (1 - least_B1) * (steps_S / max(samples - 1, 1))
    distance_BSP = (sample_BS.unsqueeze(2) - sum_BP.unsqueeze(1)).abs()
    return sequence_BP, torch.where(present_BP.unsqueeze(1), distance_BSP, 2.0)


def _drawn(sequence_BP: Tensor, distance_BSP: Tensor) -> Tensor:
    """1 for every patch that a sample draws: int64 (B, P), by position."""
    drawn_BS = sequence_BP.gather(1, distance_BSP.min(dim=2).indices)
    places_P = torch.arange(sequence_BP.shape[1], device=sequence_BP.device)
    return ((drawn_BS.unsqueeze(2) == places_P).sum(dim=1) > 0).long()


def _similarity(keys_BHND: Tensor, source_BR: Tensor, kept_BK: Tensor) -> Tensor:
    metric_BND = mean_key(keys_BHND)
    return take(metric_BND, source_BR) @ take(metric_BND, kept_BK).transpose(1, 2)


def _has_form(match: Match, at: Site) -> bool:
    """Whether tokens stand in the order prefix, drawn, absent, each by position, and no target is absent."""
    assert match.absent is not None
    absent_BK, count = match.absent, match.kept_BK.shape[1] + at.r
    prefix_BP, kept_BK = match.kept_BK[:, : at.prefix], match.kept_BK[:, at.prefix :]
    order_BK = kept_BK + absent_BK[:, at.prefix :] * count
    in_order = bool((prefix_BP == torch.arange(at.prefix)).all() and (order_BK.diff(dim=1) > 0).all())
    is_patch = bool((match.target_BR >= at.prefix).all() and not absent_BK[:, : at.prefix].any())
    return in_order and is_patch and not bool(absent_BK.gather(1, match.target_BR).any())


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of ATS.

    Attributes:
        order: in which scores are summed before patches are drawn: ascending, with as many samples as the model has
            patches at first, as the published code does it; or by position (token), with as many as there are slots,
            as the paper does it.
    """

    order: Literal["ascending", "token"] = "ascending"


def _variant(*, order: str) -> Mapping[str, object]:
    """By position there are as many samples as slots, so that no image ever needs more."""
    return {"calibrates": order == "ascending"}


METHOD = Method(
    name="ats",
    reference="Fayyaz et al., Adaptive Token Sampling for Efficient Vision Transformers, ECCV 2022",
    does="keeps the patches that samples draw by how much the class token reads of them; the slots left over are empty",
    licence="Apache-2.0",
    decide=decide,
    regret=regret,
    reads=("class_row", "values", "sizes", "mean_keys"),
    combine=combine,
    needed=needed,
    calibrates=True,
    cap=all_patches_but_one,
    dropped=all_dropped,
    proportional=False,
    absent=True,
    options=Options,
    variant=_variant,
)
