"""Carrying a match out: the size-weighted mean, in two forms of equal numbers. Eager reference and graph in one.

Shapes: B images, N tokens, K kept, R that leave, M of these that merge, C channels. Nothing here scatters: sums over
tokens are products with one-hot matrices, which every backend computes exactly and in a fixed order.

Source: Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional

from exporter.forms import Forms
from exporter.reduction.match import Match


def merge(
    tokens_BNC: Tensor, sizes_BN1: Tensor, match: Match, *, form: str, absent: bool = False
) -> tuple[Tensor, Tensor]:
    """The size-weighted mean in a form of `selection`, for methods that combine tokens by more than that."""
    chosen: tuple[Tensor, Tensor] = (
        Forms().choose({"selection": form}).function("selection")(tokens_BNC, sizes_BN1, match, absent=absent)
    )
    return chosen


def merge_by_lookup(
    tokens_BNC: Tensor, sizes_BN1: Tensor, match: Match, *, absent: bool = False
) -> tuple[Tensor, Tensor]:
    """Merge tokens by size-weighted mean: rows are looked up, and only what merges is multiplied. Least work.

    A token that nothing merges into comes out as it went in, bit by bit.

    Args:
        tokens_BNC: in the model's dtype.
        sizes_BN1: fp32, how many original tokens each one stands for.
        match: of a reduction method; a token that it drops counts in no mean and in no size.
        absent: whether sizes may be 0; the mean over nothing but absent tokens is zeros, of size 0.

    Returns:
        Tokens (B, K, C) in the dtype given, and sizes (B, K, 1) fp32.
    """
    kept_BK, (source_BM, target_BM) = match.kept_BK, merging(match)
    if not source_BM.shape[1]:
        return take(tokens_BNC, kept_BK), take(sizes_BN1, kept_BK)
    assignment_BKM = _assignment(kept_BK, target_BM)
    kept_sizes_BK1, source_sizes_BM1 = take(sizes_BN1, kept_BK), take(sizes_BN1, source_BM)
    if isinstance(match.dropped, Tensor):
        source_sizes_BM1 = source_sizes_BM1 * (1 - match.dropped.unsqueeze(2))
    sizes_BK1 = kept_sizes_BK1 + assignment_BKM @ source_sizes_BM1
    divisor_BK1 = _positive(sizes_BK1) if absent else sizes_BK1
    kept_shares_BKC = take(tokens_BNC, kept_BK) * (kept_sizes_BK1 / divisor_BK1)
    weighted_sources_BMC = take(tokens_BNC, source_BM) * source_sizes_BM1
    merged_BKC = kept_shares_BKC + (assignment_BKM / divisor_BK1) @ weighted_sources_BMC
    return merged_BKC.to(tokens_BNC.dtype), sizes_BK1


def merge_by_product(
    tokens_BNC: Tensor, sizes_BN1: Tensor, match: Match, *, absent: bool = False
) -> tuple[Tensor, Tensor]:
    """`merge_by_lookup` as one product of all tokens with a (K, N) matrix of shares."""
    kept_BK, (source_BM, target_BM), count = match.kept_BK, merging(match), tokens_BNC.shape[1]
    assignment_BKM = _assignment(kept_BK, target_BM)
    if isinstance(match.dropped, Tensor):
        assignment_BKM = assignment_BKM * (1 - match.dropped.unsqueeze(1))
    members_BKN = one_hot(kept_BK, count)
    if source_BM.shape[1]:
        members_BKN = members_BKN + assignment_BKM @ one_hot(source_BM, count)
    weights_BKN = members_BKN * sizes_BN1.transpose(1, 2)
    sizes_BK1 = weights_BKN.sum(dim=2, keepdim=True)
    divisor_BK1 = _positive(sizes_BK1) if absent else sizes_BK1
    merged_BKC = (weights_BKN / divisor_BK1) @ tokens_BNC.to(sizes_BK1.dtype)
    return merged_BKC.to(tokens_BNC.dtype), sizes_BK1


def one_hot(index_BR: Tensor, count: int) -> Tensor:
    """int64 (B, R), each in 0..count-1, as fp32 rows (B, R, count) with a one at each index."""
    return (index_BR.unsqueeze(2) == torch.arange(count, device=index_BR.device)).float()


def take(rows_BNC: Tensor, index_BK: Tensor) -> Tensor:
    """Rows of every image by position: (B, N, C) and int64 (B, K) give (B, K, C).

    A lookup in one table of all rows: whole rows are copied, where a gather along an axis would move elements.
    """
    batch, count, _ = rows_BNC.shape
    if batch == 1:
        return functional.embedding(index_BK, rows_BNC.squeeze(0))
    offset_B1 = torch.arange(batch, device=index_BK.device).unsqueeze(1) * count
    return functional.embedding(index_BK + offset_B1, rows_BNC.flatten(0, 1))


def merging(match: Match) -> tuple[Tensor, Tensor]:
    """Sources and targets, (B, M) each, less those that are dropped in every image."""
    if isinstance(match.dropped, Tensor) or not match.dropped:
        return match.source_BR, match.target_BR
    return match.source_BR[:, : -match.dropped], match.target_BR[:, : -match.dropped]


def _assignment(kept_BK: Tensor, target_BM: Tensor) -> Tensor:
    """fp32 (B, K, M), 1 where a source merges into a kept token."""
    slots_K1 = torch.arange(kept_BK.shape[1], device=target_BM.device).unsqueeze(1)
    return (target_BM.unsqueeze(1) == slots_K1).float()


def _positive(sizes_BK1: Tensor) -> Tensor:
    return torch.where(sizes_BK1 > 0, sizes_BK1, 1.0)
