"""PPT: every image drops its least significant patches, or merges as ToMe does, whichever its scores speak for.

Both remove r tokens, so that the program stays static: both decisions are computed, and one of them is taken.

Source: Wu et al., PPT: Token Pruning and Pooling for Efficient Vision Transformers, 2023, arXiv 2310.01812,
section 3.4.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from exporter.recipe_key import Range
from exporter.reduction.keep_highest import keep_highest, keep_regret, padded_regret, score_range
from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site
from exporter.reduction.methods import tome
from exporter.reduction.padding import present, quotient
from exporter.reduction.regret import order_regret, worst
from exporter.reduction.signals import mean_key


def decide(
    class_row_BN: Tensor,
    values_BHND: Tensor,
    keys_BHND: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    at: Site,
    threshold: float,
    padded: bool = False,
) -> Match:
    """Drop the r patches of the lowest scores in images whose scores vary enough, merge r patches in the others.

    The score of a patch is the class token's attention to it times the length of its value over all heads, divided by
    the sum over the patches; an image drops where the (unbiased) variance of its scores reaches the threshold.

    Args:
        class_row_BN: the class token's attention.
        values_BHND: the attention's values.
        keys_BHND: the attention's keys.
        sizes_BN1: read with padding only.
        at: 0 < r <= (N - prefix) // 2.
        threshold: variance of the scores.
        padded: whether slots may hold padding, of size 0 (`reduction.padding`); of a short text half of the patches
            leave at most.

    Returns:
        A match that is ToMe's, or that of `keep_highest`; `dropped` says for every image which.
    """
    sizes_BN1 = sizes_BN1 if padded else None
    score_BN = _scores(class_row_BN, values_BHND, at)
    drops_B1 = _variance(score_BN, sizes_BN1, at) >= threshold
    dropping = keep_highest(score_BN, mean_key(keys_BHND), at, sizes_BN1, least=_least(sizes_BN1, at))
    merging = tome.decide(keys_BHND, sizes_BN1, at=at, padded=padded)
    return Match(
        kept_BK=torch.where(drops_B1, dropping.kept_BK, merging.kept_BK),
        source_BR=torch.where(drops_B1, dropping.source_BR, merging.source_BR),
        target_BR=torch.where(drops_B1, dropping.target_BR, merging.target_BR),
        dropped=drops_B1.long().expand(-1, at.r),
    )


def regret(
    class_row_BN: Tensor,
    values_BHND: Tensor,
    keys_BHND: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    match: Match,
    at: Site,
    threshold: float,
    padded: bool = False,
) -> Tensor:
    """How far a match is from the definition of PPT, (B,): see `Method.regret`.

    Of an image that merges, ToMe's. Of one that drops, scores that rise in the order of those that stay, or a score
    that is dropped above one that is not, of the range; or a partner's cosine. Of one that does the wrong thing, by how
    much the variance misses the threshold, of the threshold. Infinite if an image does both, or a prefix token leaves.
    """
    sizes_BN1 = sizes_BN1 if padded else None
    score_BN, dropped = _scores(class_row_BN, values_BHND, at), match.dropped
    drops_BR = dropped if isinstance(dropped, Tensor) else torch.zeros_like(match.source_BR)
    drops_B = drops_BR[:, 0] > 0
    variance_B = _variance(score_BN, sizes_BN1, at)[:, 0]
    missed_B = (variance_B - threshold).abs() / max(threshold, 1e-12)
    found_B = torch.where(drops_B == (variance_B >= threshold), 0.0, missed_B)
    found_B[(drops_BR != drops_BR[:, :1]).any(dim=1)] = torch.inf
    for images in (drops_B, ~drops_B):
        if not bool(images.any()):
            continue
        own, keys = Match(*(part[images] for part in match[:3])), keys_BHND[images]
        sizes = None if sizes_BN1 is None else sizes_BN1[images]
        if images is drops_B:
            regret_B = _drop_regret(score_BN[images], keys, sizes, own, at)
        else:
            regret_B = tome.regret(keys, sizes, match=own, at=at, padded=padded)
        found_B[images] = torch.maximum(found_B[images], regret_B)
    return found_B


def _scores(class_row_BN: Tensor, values_BHND: Tensor, at: Site) -> Tensor:
    """What every patch matters, (B, N) fp32; over the patches they sum to 1."""
    length_BN = torch.linalg.vector_norm(values_BHND.float(), dim=(1, 3))
    product_BN: Tensor = class_row_BN * length_BN
    return product_BN / product_BN[:, at.prefix :].sum(dim=1, keepdim=True)


def _variance(score_BN: Tensor, sizes_BN1: Tensor | None, at: Site) -> Tensor:
    """Of the patches' scores, unbiased, (B, 1); of the patches that are there, and 0 of one alone."""
    score_BP = score_BN[:, at.prefix :]
    if sizes_BN1 is not None:
        here_BP = present(sizes_BN1[:, at.prefix :]).float()
        count_B1 = here_BP.sum(dim=1, keepdim=True)
        mean_B1 = (score_BP * here_BP).sum(dim=1, keepdim=True) / count_B1.clamp_min(1)
        centred_BP = (score_BP - mean_B1) * here_BP
        return (centred_BP * centred_BP).sum(dim=1, keepdim=True) / (count_B1 - 1).clamp_min(1)
    centred_BP = score_BP - score_BP.mean(dim=1, keepdim=True)
    return (centred_BP * centred_BP).sum(dim=1, keepdim=True) / (score_BP.shape[1] - 1)


def _least(sizes_BN1: Tensor | None, at: Site) -> int | Tensor:
    """How many patches of each text stay at least: half of them, (B, 1)."""
    if sizes_BN1 is None:
        return 1
    return quotient(present(sizes_BN1[:, at.prefix :]).long().sum(dim=1, keepdim=True) + 1, 2)


def _drop_regret(
    score_BN: Tensor, keys_BHND: Tensor, sizes_BN1: Tensor | None, match: Match, at: Site
) -> Tensor:
    """Later blocks deal the tokens out by position, so that here the order of those that stay counts as well."""
    metric_BND = mean_key(keys_BHND)
    if sizes_BN1 is not None:
        found = padded_regret(score_BN, metric_BND, match, at, sizes_BN1, least=_least(sizes_BN1, at))
        score_BN = score_BN * present(sizes_BN1)
    else:
        found = keep_regret(score_BN, metric_BND, match, at)
    ordered = order_regret(score_BN.gather(1, match.kept_BK[:, at.prefix :]))
    return worst(found, ordered / score_range(score_BN[:, at.prefix :]))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of PPT.

    Attributes:
        threshold: variance of an image's scores from which on it drops patches and merges none.
    """

    threshold: Annotated[float, Range(least=0.0)] = 7e-5


METHOD = Method(
    name="ppt",
    reference="Wu et al., PPT: Token Pruning and Pooling for Efficient Vision Transformers, 2023",
    does="per image, drops the r least significant patches or merges r as ToMe does",
    licence="Apache-2.0",
    decide=decide,
    regret=regret,
    reads=("class_row", "values", "mean_keys"),
    options=Options,
    padded=True,
)
