"""The maths that every reduction method shares: plain torch functions, eager reference and graph in one.

Shapes: B images, N tokens, K kept, R merged (K + R = N), H heads, D channels of a head, C channels.

A method decides, from the tokens' metric, which tokens merge into which (`Match`). Everything after that is common:
the size-weighted mean, the token sizes, proportional attention, and pooling by size. No function here scatters: sums
over merged tokens are products with one-hot matrices, which every backend computes exactly and in a fixed order.

Source: Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, section 3.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Selection = Literal["gather", "one-hot"]
"""How rows are picked: see `merge`."""


class Match(NamedTuple):
    """Who stays, who merges, and into whom.

    Attributes:
        kept_BK: int64 positions of the tokens that stay, in output order.
        source_BR: int64 positions of the tokens that merge.
        target_BR: for each source, the int64 index into `kept_BK` of the token that it merges into.
    """

    kept_BK: Tensor
    source_BR: Tensor
    target_BR: Tensor


def key_metric(keys: Tensor, tokens_BNC: Tensor) -> Tensor:
    """The similarity metric of ToMe: the mean of the attention keys over heads.

    Args:
        keys: (B, H, N, D) or (B * H, N, D), the keys as they enter the dot product.
        tokens_BNC: only its batch size is read.

    Returns:
        (B, N, D) fp32, normalised to unit length, so that products are cosines.
    """
    keys_BHND = keys if keys.dim() == 4 else keys.reshape(tokens_BNC.shape[0], -1, *keys.shape[1:])
    metric_BND = keys_BHND.float().mean(1)
    length_BN1: Tensor = torch.linalg.vector_norm(metric_BND, dim=-1, keepdim=True)
    return metric_BND / length_BN1.clamp_min(1e-12)


def initial_sizes(tokens_BNC: Tensor) -> Tensor:
    """Every token stands for itself: (B, N, 1) fp32 ones."""
    return torch.ones_like(tokens_BNC[..., :1], dtype=torch.float32)


def merge(
    tokens_BNC: Tensor, sizes_BN1: Tensor, match: Match, *, selection: Selection = "gather"
) -> tuple[Tensor, Tensor]:
    """Merge tokens by size-weighted mean.

    Args:
        tokens_BNC: in the model's dtype.
        sizes_BN1: fp32, how many original tokens each one stands for.
        match: from a reduction method.
        selection: `gather` looks rows up and multiplies what merges only, least work; `one-hot` is one product of
            all tokens with a (K, N) matrix. A token that nothing merges into comes out as it went in, either way.

    Returns:
        Tokens (B, K, C) in the dtype given, and sizes (B, K, 1) fp32.
    """
    kept_BK, source_BR, target_BR = match
    slots_K1 = torch.arange(kept_BK.shape[1], device=target_BR.device).unsqueeze(1)
    assignment_BKR = (target_BR.unsqueeze(1) == slots_K1).float()
    if selection == "one-hot":
        count = tokens_BNC.shape[1]
        members_BKN = one_hot(kept_BK, count) + assignment_BKR @ one_hot(source_BR, count)
        weights_BKN = members_BKN * sizes_BN1.transpose(1, 2)
        sizes_BK1 = weights_BKN.sum(dim=2, keepdim=True)
        merged_BKC = (weights_BKN / sizes_BK1) @ tokens_BNC.to(sizes_BK1.dtype)
    else:
        kept_sizes_BK1, source_sizes_BR1 = take(sizes_BN1, kept_BK), take(sizes_BN1, source_BR)
        sizes_BK1 = kept_sizes_BK1 + assignment_BKR @ source_sizes_BR1
        kept_shares_BKC = take(tokens_BNC, kept_BK) * (kept_sizes_BK1 / sizes_BK1)
        weighted_sources_BRC = take(tokens_BNC, source_BR) * source_sizes_BR1
        merged_BKC = kept_shares_BKC + (assignment_BKR / sizes_BK1) @ weighted_sources_BRC
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


def record_match(match: Match) -> Tensor:
    """A match as one tensor, (B, K + R + R) int64, so that an engine can return it; see `read_match`."""
    return torch.cat(match, dim=1)


def read_match(record: Tensor, r: int) -> Match:
    """The match that `record_match` wrote down, of r merged tokens."""
    kept_BK, source_BR, target_BR = torch.split(record, [record.shape[1] - 2 * r, r, r], dim=1)
    return Match(kept_BK, source_BR, target_BR)


def matched_pairs(match: Match) -> Tensor:
    """The merges as pairs of input positions: (B, R, 2) int64, source then destination."""
    destination_BR = match.kept_BK.gather(1, match.target_BR)
    return torch.stack((match.source_BR, destination_BR), dim=-1)


def log_size_bias(sizes_BN1: Tensor, queries: Tensor, prefix_change: int) -> Tensor:
    """The bias of proportional attention: softmax(q k^T * scale + log size), ToMe equation 1.

    Args:
        sizes_BN1: fp32 sizes of the tokens.
        queries: (B, H, M, D) or (B * H, M, D); gives the dtype and the number of axes.
        prefix_change: tokens that the keys have more (positive) or fewer (negative) in front than `sizes_BN1`.

    Returns:
        (B, 1, 1, N) or (B * H, 1, N), to be added to the logits.
    """
    bias_BN1 = aligned_sizes(sizes_BN1, prefix_change).log().to(queries.dtype)
    if queries.dim() == 4:
        return bias_BN1.reshape(-1, 1, 1, bias_BN1.shape[1])
    bias_B1N = bias_BN1.transpose(1, 2)
    return bias_B1N.repeat_interleave(queries.shape[0] // bias_B1N.shape[0], dim=0)


def expanded_log_size_bias(sizes_BN1: Tensor, queries: Tensor, prefix_change: int) -> Tensor:
    """`log_size_bias` with a row for every query, where an engine broadcasts a bias over batch and heads only.

    Returns:
        (B, 1, M, N) or (B * H, M, N).
    """
    bias = log_size_bias(sizes_BN1, queries, prefix_change)
    return bias.expand(*bias.shape[:-2], queries.shape[-2], bias.shape[-1])


def fold_log_size(
    queries: Tensor, keys: Tensor, values: Tensor, sizes_BN1: Tensor, prefix_change: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The same bias as one more channel, so that attention needs no mask: [q, 1] [k, log(size) / scale]^T.

    Heads are padded with zeros to the next multiple of 8, which fused kernels ask for; the padding of the values has
    to be cut off the result.

    Args:
        queries: (B, H, M, D) or (B * H, M, D).
        keys: (B, H, N, D) or (B * H, N, D).
        values: as `keys`.
        sizes_BN1: fp32 sizes of the tokens.
        prefix_change: as in `log_size_bias`.
        scale: that attention multiplies q k^T by.

    Returns:
        Queries, keys and values with D' = 8 (D // 8 + 1) channels a head.
    """
    padding = 8 - keys.shape[-1] % 8
    first = functional.pad(keys.new_ones(1), (0, padding - 1))
    bias_column = (log_size_bias(sizes_BN1, keys, prefix_change) / scale).transpose(-1, -2)
    padded_queries = torch.cat((queries, first.expand(*queries.shape[:-1], padding)), dim=-1)
    padded_keys = torch.cat((keys, (bias_column * first).expand(*keys.shape[:-1], padding)), dim=-1)
    return padded_queries, padded_keys, functional.pad(values, (0, padding))


def aligned_sizes(sizes_BN1: Tensor, prefix_change: int) -> Tensor:
    """Sizes for a value that has more (each of size 1) or fewer tokens in front: (B, N + prefix_change, 1)."""
    if prefix_change <= 0:
        return sizes_BN1[:, -prefix_change:]
    return torch.cat((torch.ones_like(sizes_BN1[:, :prefix_change]), sizes_BN1), dim=1)


def weighted_mean(
    values: Tensor, sizes_BN1: Tensor, prefix_change: int, token_axis: int, keepdim: bool
) -> Tensor:
    """The mean over tokens, each counted as often as it has originals.

    Args:
        values: (B, N', C) or (N', B, C).
        sizes_BN1: fp32 sizes of the tokens.
        prefix_change: as in `log_size_bias`.
        token_axis: 1 or 0.
        keepdim: whether the token axis stays, with one entry.
    """
    weights_BN1 = aligned_sizes(sizes_BN1, prefix_change)
    shares = (weights_BN1 / weights_BN1.sum(dim=1, keepdim=True)).to(values.dtype)
    shares = shares if token_axis == 1 else shares.transpose(0, 1)
    return (values * shares).sum(dim=token_axis, keepdim=keepdim)
