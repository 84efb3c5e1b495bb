"""ToMe: bipartite soft matching by alternating position.

Source: Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, section 3 and appendix D.
"""

import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site
from exporter.reduction.ranking import partition_top
from exporter.reduction.regret import partner_regret, ranking_regret, without_form, worst
from exporter.reduction.signals import mean_key


def decide(keys_BHND: Tensor, *, at: Site) -> Match:
    """Match the r tokens at even positions that are most similar to one at an odd position.

    Even and odd count from the first token, prefix included; prefix tokens take no part. Every even token has its
    best odd partner (lowest position on ties); the r even tokens with the best partners merge (lowest on ties).
    Similarity is the cosine of the mean keys.

    Args:
        keys_BHND: the attention's keys.
        at: 0 < r <= (N - prefix) // 2.

    Returns:
        A match whose output order is prefix tokens, unmerged even tokens, odd tokens.
    """
    metric_BND = mean_key(keys_BHND)
    first_even, first_odd = _starts(at)
    even_BXD, odd_BYD = metric_BND[:, first_even::2], metric_BND[:, first_odd::2]
    best_BX, partner_BX = (even_BXD @ odd_BYD.transpose(1, 2)).max(dim=2)
    unmerged, merged = partition_top(best_BX, at.r)
    batch, odd = metric_BND.shape[0], odd_BYD.shape[1]
    positions = torch.arange(metric_BND.shape[1], device=metric_BND.device)
    prefix_BP = positions[: at.prefix].expand(batch, -1)
    odd_BY = positions[first_odd::2].expand(batch, odd)
    kept_BK = torch.cat((prefix_BP, unmerged * 2 + first_even, odd_BY), dim=1)
    target_BR = partner_BX.gather(1, merged) + (at.prefix + unmerged.shape[1])
    return Match(kept_BK, merged * 2 + first_even, target_BR)


def regret(keys_BHND: Tensor, *, match: Match, at: Site) -> Tensor:
    """How far a match is from the definition of ToMe, (B,): see `Method.regret`.

    The larger of two shortfalls: a source's best similarity less that to its own partner, and the best similarity of
    a token that stayed less the lowest of one that merged. Infinite if the tokens are not in the output order of
    `decide`, or a target is not at an odd position.
    """
    metric_BND = mean_key(keys_BHND)
    first_even, first_odd = _starts(at)
    even_BXD, odd_BYD = metric_BND[:, first_even::2], metric_BND[:, first_odd::2]
    partner_BR = match.target_BR - (match.kept_BK.shape[1] - odd_BYD.shape[1])
    if not _has_form(match, at) or int(partner_BR.min()) < 0:
        return without_form(len(metric_BND))
    scores_BXY = even_BXD @ odd_BYD.transpose(1, 2)
    source_BR = (match.source_BR - first_even) // 2
    pairs_BRY = scores_BXY[torch.arange(len(scores_BXY)).unsqueeze(1), source_BR]
    return worst(partner_regret(pairs_BRY, partner_BR), ranking_regret(scores_BXY.amax(dim=2), source_BR))


def _starts(at: Site) -> tuple[int, int]:
    """The first even and the first odd position after the prefix."""
    return at.prefix + at.prefix % 2, at.prefix + 1 - at.prefix % 2


def _has_form(match: Match, at: Site) -> bool:
    """Whether a match merges even tokens and keeps the others in order: prefix, even, odd."""
    count = match.kept_BK.shape[1] + at.r
    positions = torch.arange(count)
    odd = positions[_starts(at)[1] :: 2]
    kept_prefix, even, kept_odd = match.kept_BK.tensor_split((at.prefix, count - at.r - len(odd)), dim=1)
    in_order = bool((kept_prefix == positions[: at.prefix]).all() and (kept_odd == odd).all())
    evens = torch.cat((even, match.source_BR), dim=1)
    all_even = bool((evens >= at.prefix).all() and (evens % 2 == 0).all())
    return in_order and all_even and bool((even.diff(dim=1) > 0).all())


METHOD = Method(
    name="tome",
    reference="Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023",
    does="merges the r patches at even positions that are most similar to one at an odd position",
    licence="CC BY-NC 4.0",
    decide=decide,
    regret=regret,
    kernels="exporter.kernels.matching:decide_tome",
)
