"""ToMe: bipartite soft matching by alternating position.

Source: Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, section 3 and appendix D.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from exporter.recipe_key import Range
from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site, compared_by
from exporter.reduction.padding import NEVER, compact, filled_slots, present, spread
from exporter.reduction.ranking import partition_top
from exporter.reduction.regret import partner_regret, ranking_regret, without_form, worst
from exporter.reduction.signals import comparable

_LATE = 0.5


def decide(
    compared: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    at: Site,
    size_penalty: float = 0.0,
    padded: bool = False,
    **_options: object,
) -> Match:
    """Match the r tokens at even positions that are most similar to one at an odd position.

    Even and odd count from the first token, prefix included; prefix tokens take no part. Every even token has its
    best odd partner (lowest position on ties); the r even tokens with the best partners merge (lowest on ties).
    Similarity is the cosine of the mean keys, or of the tokens.

    Args:
        compared: the attention's keys (B, H, N, D), or the tokens (B, N, C).
        sizes_BN1: fp32; read with a size penalty or padding only.
        at: 0 < r <= (N - prefix) // 2.
        size_penalty: see `Options`.
        padded: whether slots may hold padding, of size 0, after the tokens (`reduction.padding`).

    Returns:
        A match whose output order is prefix tokens, unmerged even tokens, odd tokens.
    """
    first_even, first_odd = _starts(at)
    scores_BXY = _scores(compared, sizes_BN1, at, size_penalty, padded=padded)
    best_BX, partner_BX = scores_BXY.max(dim=2)
    unmerged, merged = partition_top(best_BX, at.r)
    batch, odd = scores_BXY.shape[0], scores_BXY.shape[2]
    positions = torch.arange(compared.shape[-2], device=compared.device)
    prefix_BP = positions[: at.prefix].expand(batch, -1)
    odd_BY = positions[first_odd::2].expand(batch, odd)
    kept_BK = torch.cat((prefix_BP, unmerged * 2 + first_even, odd_BY), dim=1)
    target_BR = partner_BX.gather(1, merged) + (at.prefix + unmerged.shape[1])
    match = Match(kept_BK, merged * 2 + first_even, target_BR)
    return compact(match, _filled(sizes_BN1, at)) if padded and sizes_BN1 is not None else match


def regret(
    compared: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    match: Match,
    at: Site,
    size_penalty: float = 0.0,
    padded: bool = False,
    **_options: object,
) -> Tensor:
    """How far a match is from the definition of ToMe, (B,): see `Method.regret`.

    The larger of two shortfalls: a source's best similarity less that to its own partner, and the best similarity of
    a token that stayed less the lowest of one that merged. Infinite if the tokens are not in the output order of
    `decide`, or a target is not at an odd position.
    """
    scores_BXY = _scores(compared, sizes_BN1, at, size_penalty, padded=padded)
    if padded and sizes_BN1 is not None:
        match = spread(match, _filled(sizes_BN1, at))
    partner_BR = match.target_BR - (match.kept_BK.shape[1] - scores_BXY.shape[2])
    if not _has_form(match, at) or int(partner_BR.min()) < 0:
        return without_form(len(scores_BXY))
    source_BR = (match.source_BR - _starts(at)[0]) // 2
    pairs_BRY = scores_BXY[torch.arange(len(scores_BXY)).unsqueeze(1), source_BR]
    return worst(partner_regret(pairs_BRY, partner_BR), ranking_regret(scores_BXY.amax(dim=2), source_BR))


def _scores(
    compared: Tensor, sizes_BN1: Tensor | None, at: Site, size_penalty: float, *, padded: bool
) -> Tensor:
    """What even tokens (rows) and odd tokens (columns) are matched by, (B, X, Y)."""
    metric_BND = comparable(compared)
    first_even, first_odd = _starts(at)
    even_BXD, odd_BYD = metric_BND[:, first_even::2], metric_BND[:, first_odd::2]
    score_BXY = even_BXD @ odd_BYD.transpose(1, 2)
    is_penalised = bool(size_penalty) and at.depth >= _LATE
    if sizes_BN1 is None or not (is_penalised or padded):
        return score_BXY
    even_BX1, odd_B1Y = sizes_BN1[:, first_even::2], sizes_BN1[:, first_odd::2].transpose(1, 2)
    if is_penalised:
        score_BXY = score_BXY - size_penalty * (even_BX1 + odd_B1Y).log()
    return torch.where((even_BX1 > 0) & (odd_B1Y > 0), score_BXY, NEVER) if padded else score_BXY


def _filled(sizes_BN1: Tensor, at: Site) -> Tensor:
    """Which slots that stay will hold a token, where some hold padding."""
    here_BN = present(sizes_BN1).long()
    first_even, first_odd = _starts(at)
    even_BX, odd_BY = here_BN[:, first_even::2], here_BN[:, first_odd::2]
    return filled_slots(
        (at.prefix, here_BN[:, : at.prefix].sum(dim=1)),
        (even_BX.shape[1] - at.r, even_BX.sum(dim=1) - at.r),
        (odd_BY.shape[1], odd_BY.sum(dim=1)),
    )


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


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of ToMe.

    Attributes:
        metric: what the cosine is taken of: the mean of the attention's keys over heads, or the tokens that are merged.
        size_penalty: in the second half of the blocks, the similarity of a pair is lowered by this times
            log(the size of both together), so that large tokens grow less; 0 is ToMe. After Lee and Choi, Lossless
            Token Merging Even Without Fine-Tuning in Vision Transformers, 2025, which matches by size in late blocks.
    """

    metric: Literal["keys", "tokens"] = "keys"
    size_penalty: Annotated[float, Range(least=0.0)] = 0.0


def _variant(*, metric: str, size_penalty: float) -> Mapping[str, Any]:
    return {"reads": (compared_by(metric), *(("sizes",) if size_penalty else ()))}


METHOD = Method(
    name="tome",
    reference="Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023",
    does="merges the r patches at even positions that are most similar to one at an odd position",
    licence="CC BY-NC 4.0",
    decide=decide,
    regret=regret,
    options=Options,
    variant=_variant,
    padded=True,
    kernels="exporter.kernels.matching:decide_tome",
)
