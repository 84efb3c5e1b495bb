"""DiffRate: the patches that the class token attends to least leave; the last of them are dropped, the others merge.

How many do which in each block is the schedule's to say; the authors learn it, with the model's weights frozen.

Source: Chen et al., DiffRate: Differentiable Compression Rate for Efficient Vision Transformers, ICCV 2023, section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional

from exporter.reduction.keep_highest import chosen_regret, keep_highest, keep_regret, padded_regret
from exporter.reduction.match import Match
from exporter.reduction.merge import merge, merging, one_hot, take
from exporter.reduction.method import Method, Site
from exporter.reduction.regret import worst
from exporter.reduction.sizes import presence
from exporter.schedule import all_patches_but_one

LEAST_SIZE = 1e-6
"""A source whose cosine is negative takes from its target's size; this keeps the logarithm finite."""


def decide(
    class_row_BN: Tensor,
    tokens_BNC: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    at: Site,
    padded: bool = False,
) -> Match:
    """Rank the patches by the class token's attention, the lower position first on ties.

    The first N - prefix - r stay, the next r - dropped merge, the last ones are dropped. Each that leaves names the
    patch that stays whose token is most similar by cosine (the better attended one on ties); prefix tokens are no
    targets.

    Args:
        class_row_BN: the class token's attention, log(size) included.
        tokens_BNC: after attention.
        sizes_BN1: read with padding only.
        at: 0 < r < N - prefix.
        padded: whether slots may hold padding, of size 0 (`reduction.padding`).

    Returns:
        A match whose output order is prefix tokens, patches from the best attended one down. A block that nothing
        leaves keeps its order; no number depends on that.
    """
    return keep_highest(class_row_BN, _unit(tokens_BNC), at, sizes_BN1 if padded else None)


def combine(
    tokens_BNC: Tensor,
    sizes_BN1: Tensor,
    match: Match,
    class_row_BN: Tensor,
    metric_BNC: Tensor,
    *signals: Tensor,
    form: str,
    padded: bool = False,
) -> tuple[Tensor, Tensor]:
    """The plain mean of a token and its sources; its size grows by each source's size times their cosine.

    A size is at least `LEAST_SIZE`, and that of padding 0.
    """
    counts_BN1 = presence(sizes_BN1) if padded else torch.ones_like(sizes_BN1)
    merged_BKC, _ = merge(tokens_BNC, counts_BN1, match, form=form, absent=padded)
    source_BM, target_BM = merging(match)
    kept_sizes_BK1 = take(sizes_BN1, match.kept_BK)
    if not source_BM.shape[1]:
        return merged_BKC, kept_sizes_BK1
    unit_BNC = _unit(metric_BNC)
    partner_BM = match.kept_BK.gather(1, target_BM)
    cosine_BM1 = (take(unit_BNC, source_BM) * take(unit_BNC, partner_BM)).sum(dim=2, keepdim=True)
    gained_BM1 = take(sizes_BN1, source_BM) * cosine_BM1
    assignment_BKM = one_hot(target_BM, match.kept_BK.shape[1]).transpose(1, 2)
    grown_BK1 = (kept_sizes_BK1 + assignment_BKM @ gained_BM1).clamp_min(LEAST_SIZE)
    return merged_BKC, grown_BK1 * presence(kept_sizes_BK1) if padded else grown_BK1


def regret(
    class_row_BN: Tensor,
    tokens_BNC: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    match: Match,
    at: Site,
    padded: bool = False,
) -> Tensor:
    """How far a match is from the definition of DiffRate, (B,): see `Method.regret`.

    The largest of three shortfalls: by how much more the class token attends to a patch that leaves than to one that
    stays, and to one that is dropped than to one that is not, of the range; and the best cosine of a patch that leaves
    to one that stays less that to its own target. Infinite if a prefix token leaves or is a target.
    """
    if padded and sizes_BN1 is not None:
        return padded_regret(class_row_BN, _unit(tokens_BNC), match, at, sizes_BN1)
    found = keep_regret(class_row_BN, _unit(tokens_BNC), match, at)
    not_dropped_BM = torch.cat((match.kept_BK[:, at.prefix :], merging(match)[0]), dim=1)
    return worst(found, chosen_regret(class_row_BN, not_dropped_BM, at))


def _unit(tokens_BNC: Tensor) -> Tensor:
    """fp32 at unit length."""
    return functional.normalize(tokens_BNC.float(), dim=2, eps=1e-12)


METHOD = Method(
    name="diffrate",
    reference="Chen et al., DiffRate, ICCV 2023",
    does="of the patches that the class token attends to least, drops the last and merges the others",
    licence="none stated",
    training="none; the authors learn the schedule",
    decide=decide,
    regret=regret,
    reads=("class_row", "tokens"),
    combine=combine,
    cap=all_patches_but_one,
    pairs=True,
    padded=True,
)
