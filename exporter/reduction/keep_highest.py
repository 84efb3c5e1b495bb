"""The choice that several methods share: the patches of the highest scores stay.

Shapes: B images, N tokens, K patches that stay, R that leave, D channels.
"""

import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.merge import take
from exporter.reduction.method import Site
from exporter.reduction.ranking import order_descending
from exporter.reduction.regret import partner_regret, ranking_regret, without_form, worst


def keep_highest(score_BN: Tensor, metric_BND: Tensor, at: Site) -> Match:
    """Rank the patches by score, the lower position first on ties; the first N - prefix - r stay.

    Args:
        score_BN: of every token; those of the prefix are not read.
        metric_BND: at unit length; each patch that leaves names the one that stays which is most similar to it by
            cosine (that of the higher score on ties). Prefix tokens are no targets.
        at: 0 < r < N - prefix.

    Returns:
        A match whose output order is prefix tokens, patches from the highest score down. The sources follow in the same
        order, so that those of the lowest scores are dropped.
    """
    order_BP = order_descending(score_BN[:, at.prefix :]) + at.prefix
    batch, patches = order_BP.shape
    stay_BK, source_BR = order_BP.split([patches - at.r, at.r], dim=1)
    prefix_BP = torch.arange(at.prefix, device=order_BP.device).expand(batch, -1)
    target_BR = similarity(metric_BND, source_BR, stay_BK).max(dim=2).indices + at.prefix
    return Match(torch.cat((prefix_BP, stay_BK), dim=1), source_BR, target_BR, at.dropped)


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
