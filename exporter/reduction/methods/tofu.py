"""ToFu: what ToMe would merge is dropped in early blocks, and averaged at full length in late ones.

Source: Kim et al., Token Fusion: Bridging the Gap between Token Pruning and Token Merging, WACV 2024, section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from exporter.recipe_key import Count
from exporter.reduction.match import Match
from exporter.reduction.merge import merge, one_hot, take
from exporter.reduction.method import Method, Site
from exporter.reduction.methods import tome
from exporter.reduction.signals import lengths


def decide(keys_BHND: Tensor, *, at: Site, **_options: object) -> Match:
    """Match as ToMe does; see `tome.decide`."""
    return tome.decide(keys_BHND, at=at)._replace(dropped=at.dropped)


def regret(keys_BHND: Tensor, *, match: Match, at: Site, **_options: object) -> Tensor:
    """That of ToMe, (B,); see `tome.regret`."""
    return tome.regret(keys_BHND, match=match, at=at)


def dropped(removed: int, block: int, blocks: int, *, split: int | None, **_options: object) -> int:
    """All of them in the first `split` blocks, none after these."""
    return removed if block < (blocks // 2 + 1 if split is None else split) else 0


def searched(blocks: int) -> Mapping[str, Sequence[int]]:
    """Every split, from all blocks that merge to all that drop."""
    return {"split": range(blocks + 1)}


def combine(
    tokens_BNC: Tensor,
    sizes_BN1: Tensor,
    match: Match,
    keys_BHND: Tensor,
    *,
    form: str,
    weighted: bool,
    **_options: object,
) -> tuple[Tensor, Tensor]:
    """Drop what the match drops; what it merges becomes the mean, at the length of the longest token in it (MLERP).

    Norms and means are computed in fp32: a residual stream has tokens whose squared norm is not finite in fp16. A token
    that nothing merges into comes out as it went in.

    Args:
        tokens_BNC: in the model's dtype.
        sizes_BN1: fp32, all 1 unless `weighted`.
        match: of `decide`.
        keys_BHND: not read.
        form: of the mean.
        weighted: whether the mean weighs tokens by size, and their sizes add up.

    Returns:
        Tokens (B, K, C) in the dtype given, and sizes (B, K, 1) fp32.
    """
    if match.dropped:
        return merge(tokens_BNC, sizes_BN1, match, form=form)
    wide_BNC = tokens_BNC.float()
    mean_BKC, sizes_BK1 = merge(wide_BNC, sizes_BN1, match, form=form)
    length_BN1 = lengths(wide_BNC)
    into_BKR = one_hot(match.target_BR, match.kept_BK.shape[1]).transpose(1, 2)
    longest_BK1 = (into_BKR * take(length_BN1, match.source_BR).transpose(1, 2)).amax(dim=2, keepdim=True)
    longest_BK1 = torch.maximum(longest_BK1, take(length_BN1, match.kept_BK))
    stretched_BKC = mean_BKC * (longest_BK1 / lengths(mean_BKC).clamp_min(1e-12))
    merged_BKC = torch.where(into_BKR.amax(dim=2, keepdim=True) > 0, stretched_BKC, mean_BKC)
    return merged_BKC.to(tokens_BNC.dtype), sizes_BK1 if weighted else take(sizes_BN1, match.kept_BK)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of ToFu.

    Attributes:
        split: how many blocks drop, the first ones, before those that merge; by default one more than half of them, as
            public re-implementations have it. The paper chooses it by how linear the blocks are; auto tries all of
            them on images without labels.
        weighted: whether merging weighs tokens by size and attention counts them by it. Without, the mean is a plain
            one, as in the re-implementations that count no sizes.
    """

    split: Count | Literal["auto"] | None = None
    weighted: bool = True


METHOD = Method(
    name="tofu",
    reference="Kim et al., Token Fusion: Bridging the Gap between Token Pruning and Token Merging, WACV 2024",
    does="of ToMe's pairs, drops the first token in early blocks and averages both at full length in late ones",
    licence="none published",
    decide=decide,
    regret=regret,
    combine=combine,
    dropped=dropped,
    searched=searched,
    options=Options,
    kernels="exporter.kernels.matching:decide_tofu",
)
