"""VisionZip: at the end of a tower the best attended patches stay, and the others become a few contextual tokens.

It is for towers whose tokens another model reads, such as the language model of LLaVA: it reduces one block, the last
one that is read.

Source: Yang et al., VisionZip: Longer is Better but Not Necessary in Vision Language Models, CVPR 2025, section 3.2.

Shapes: B images, N tokens, P patches, K that stay, of which D dominant and M contextual, R that leave, C channels.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from exporter.recipe_key import Range
from exporter.reduction.keep_highest import chosen_regret, keeps_prefix, similarity
from exporter.reduction.match import Match
from exporter.reduction.merge import take
from exporter.reduction.method import Method, Site
from exporter.reduction.ranking import ascending, order_descending
from exporter.reduction.regret import partner_regret, without_form, worst
from exporter.reduction.signals import mean_key
from exporter.schedule import all_patches_but_one


def decide(class_row_BN: Tensor, keys_BHND: Tensor, *, at: Site, contextual: float) -> Match:
    """Keep the D patches that the class token attends to most, and M of the others in even steps.

    Of the P - D others, in order of position, every one at a multiple of the step (P - D) // M stays as a contextual
    token, until there are M; each of the rest leaves into the contextual one whose mean key is most similar to its own
    (the first one on ties).

    Args:
        class_row_BN: the class token's attention.
        keys_BHND: the attention's keys.
        at: 0 < r < N - prefix.
        contextual: M is this share of the patches that stay, at least 1.

    Returns:
        A match whose output order is prefix tokens, dominant patches, contextual ones, each by position.
    """
    order_BP = order_descending(class_row_BN[:, at.prefix :]) + at.prefix
    dominant, others = _counts(order_BP.shape[1], at, contextual)
    dominant_BD, other_BX = (ascending(part) for part in order_BP.split([dominant, others], dim=1))
    contextual_BM, source_BR = _split(other_BX, at)
    prefix_BP = torch.arange(at.prefix, device=order_BP.device).expand(len(order_BP), -1)
    target_BR = similarity(mean_key(keys_BHND), source_BR, contextual_BM).max(dim=2).indices
    kept_BK = torch.cat((prefix_BP, dominant_BD, contextual_BM), dim=1)
    return Match(kept_BK, source_BR, target_BR + at.prefix + dominant)


def combine(
    tokens_BNC: Tensor, sizes_BN1: Tensor, match: Match, *signals: Tensor, form: str, contextual: float
) -> tuple[Tensor, Tensor]:
    """A contextual token is itself plus the mean of those that leave into it; every token counts once."""
    slots_K1 = torch.arange(match.kept_BK.shape[1], device=match.target_BR.device).unsqueeze(1)
    assigned_BKR = (match.target_BR.unsqueeze(1) == slots_K1).float()
    shares_BKR = assigned_BKR / assigned_BKR.sum(dim=2, keepdim=True).clamp_min(1.0)
    added_BKC = shares_BKR @ take(tokens_BNC, match.source_BR).float()
    merged_BKC = (take(tokens_BNC, match.kept_BK).float() + added_BKC).to(tokens_BNC.dtype)
    return merged_BKC, take(sizes_BN1, match.kept_BK)


def regret(class_row_BN: Tensor, keys_BHND: Tensor, *, match: Match, at: Site, contextual: float) -> Tensor:
    """How far a match is from the definition of VisionZip, (B,): see `Method.regret`.

    The larger of two shortfalls: by how much more the class token attends to a patch that is not dominant than to one
    that is, of the range; and the best similarity of a patch that leaves to a contextual one less that to its own.
    Infinite if tokens are not in the output order of `decide`, or others than every n-th are contextual.
    """
    dominant, _ = _counts(class_row_BN.shape[1] - at.prefix, at, contextual)
    first = at.prefix + dominant
    dominant_BD, contextual_BM = match.kept_BK[:, at.prefix : first], match.kept_BK[:, first:]
    other_BX = torch.cat((contextual_BM, match.source_BR), dim=1).sort(dim=1).values
    own_BM, own_BR = _split(other_BX, at)
    in_form = torch.equal(own_BM, contextual_BM) and torch.equal(own_BR, match.source_BR)
    if not (in_form and keeps_prefix(match, at) and bool((match.target_BR >= first).all())):
        return without_form(len(class_row_BN))
    similarity_BRM = similarity(mean_key(keys_BHND), match.source_BR, contextual_BM)
    partner = partner_regret(similarity_BRM, match.target_BR - first)
    return worst(chosen_regret(class_row_BN, dominant_BD, at), partner) if dominant else partner


def _counts(patches: int, at: Site, contextual: float) -> tuple[int, int]:
    """Dominant patches, and others."""
    stay = patches - at.r
    dominant = stay - max(1, round(contextual * stay))
    return dominant, patches - dominant


def _split(other_BX: Tensor, at: Site) -> tuple[Tensor, Tensor]:
    """Patches by position into contextual ones, at even steps, and those that leave."""
    others = other_BX.shape[1]
    count = others - at.r
    chosen = list(range(0, others, others // count))[:count]
    rest = sorted(set(range(others)) - set(chosen))
    return other_BX[:, chosen], other_BX[:, rest]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of VisionZip.

    Attributes:
        contextual: share of the patches that stay which are contextual tokens; 10 of 64 by default.
    """

    contextual: Annotated[float, Range(least=0.0, most=1.0)] = 10 / 64


METHOD = Method(
    name="visionzip",
    reference="Yang et al., VisionZip: Longer is Better but Not Necessary in Vision Language Models, CVPR 2025",
    does="keeps the best attended patches, and adds the mean of the most similar others to some in even steps",
    licence="Apache-2.0",
    decide=decide,
    regret=regret,
    reads=("class_row", "keys"),
    combine=combine,
    cap=all_patches_but_one,
    place="block-end",
    proportional=False,
    options=Options,
)
