"""ToMe: bipartite soft matching by alternating position.

Source: Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, section 3 and appendix D.
"""

import torch
from torch import Tensor

from exporter.reduction.merge import Match
from exporter.reduction.method import Method
from exporter.reduction.ranking import partition_top


def match(metric_BNC: Tensor, *, r: int, prefix: int, depth: float) -> Match:
    """Match the r tokens at even positions that are most similar to one at an odd position.

    Even and odd count from the first token, prefix included; prefix tokens take no part. Every even token has its
    best odd partner (lowest position on ties); the r even tokens with the best partners merge (lowest on ties).

    Args:
        metric_BNC: (B, N, C) unit vectors.
        r: tokens to merge, 0 < r <= (N - prefix) // 2.
        prefix: protected tokens in front.
        depth: not used by this method.

    Returns:
        A match whose output order is prefix tokens, unmerged even tokens, odd tokens.
    """
    first_even, first_odd = prefix + prefix % 2, prefix + 1 - prefix % 2
    even_BXC, odd_BYC = metric_BNC[:, first_even::2], metric_BNC[:, first_odd::2]
    best_BX, partner_BX = (even_BXC @ odd_BYC.transpose(1, 2)).max(dim=2)
    unmerged, merged = partition_top(best_BX, r)
    batch, odd = metric_BNC.shape[0], odd_BYC.shape[1]
    positions = torch.arange(metric_BNC.shape[1], device=metric_BNC.device)
    prefix_BP = positions[:prefix].expand(batch, -1)
    odd_BY = positions[first_odd::2].expand(batch, odd)
    kept_BK = torch.cat((prefix_BP, unmerged * 2 + first_even, odd_BY), dim=1)
    target_BR = partner_BX.gather(1, merged) + (prefix + unmerged.shape[1])
    return Match(kept_BK, merged * 2 + first_even, target_BR)


def regret(metric_BNC: Tensor, match: Match, *, r: int, prefix: int, depth: float) -> Tensor:
    """How far a match is from the definition of ToMe, (B,): see `Method.regret`.

    The larger of two shortfalls: a source's best similarity less that to its own partner, and the best similarity of
    a token that stayed less the lowest of one that merged. Infinite if the tokens are not in the output order of
    `match`, or a target is not at an odd position.
    """
    first_even, first_odd = prefix + prefix % 2, prefix + 1 - prefix % 2
    even_BXC, odd_BYC = metric_BNC[:, first_even::2], metric_BNC[:, first_odd::2]
    scores_BXY = even_BXC @ odd_BYC.transpose(1, 2)
    best_BX = scores_BXY.amax(dim=2)
    source_BR = (match.source_BR - first_even) // 2
    partner_BR = match.target_BR - (match.kept_BK.shape[1] - odd_BYC.shape[1])
    if (
        not _has_form(match, r, prefix)
        or int(partner_BR.min()) < 0
        or int(partner_BR.max()) >= odd_BYC.shape[1]
    ):
        return torch.full((len(metric_BNC),), float("inf"))
    chosen_BR = scores_BXY[torch.arange(len(scores_BXY)).unsqueeze(1), source_BR, partner_BR]
    merged_best_BR = best_BX.gather(1, source_BR)
    stayed_BX = best_BX.scatter(1, source_BR, float("-inf")).amax(dim=1)
    partner_regret = (merged_best_BR - chosen_BR).amax(dim=1)
    return torch.maximum(partner_regret, stayed_BX - merged_best_BR.amin(dim=1)).clamp_min(0)


def _has_form(match: Match, r: int, prefix: int) -> bool:
    """Whether a match merges even tokens and keeps the others in order: prefix, even, odd."""
    count = match.kept_BK.shape[1] + r
    positions = torch.arange(count)
    odd = positions[prefix + 1 - prefix % 2 :: 2]
    kept_prefix, even, kept_odd = match.kept_BK.tensor_split((prefix, count - r - len(odd)), dim=1)
    in_order = bool((kept_prefix == positions[:prefix]).all() and (kept_odd == odd).all())
    evens = torch.cat((even, match.source_BR), dim=1)
    all_even = bool((evens >= prefix).all() and (evens % 2 == 0).all())
    return in_order and all_even and bool((even.diff(dim=1) > 0).all())


METHOD = Method(name="tome", reference="Bolya et al., ICLR 2023", match=match, regret=regret)
