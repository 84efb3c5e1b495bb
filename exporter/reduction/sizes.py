"""What the sizes of tokens do to attention and to means. Eager reference and graph in one.

Shapes: B images, N tokens, M queries, H heads, D channels of a head, C channels.

Source: Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, section 3, equation 1.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOG_ABSENT = -2048.0
"""Stands for log(0): finite in every float, where e^-2048 is 0."""


def initial_sizes(tokens_BNC: Tensor) -> Tensor:
    """Every token stands for itself: (B, N, 1) fp32 ones."""
    return torch.ones_like(tokens_BNC[..., :1], dtype=torch.float32)


def sizes_of_texts(mask_B11N: Tensor) -> Tensor:
    """Every token of a text stands for itself, and padding for nothing.

    Args:
        mask_B11N: boolean, true for the tokens that are there.

    Returns:
        (B, N, 1) fp32 ones and zeros.
    """
    return mask_B11N.reshape(-1, mask_B11N.shape[3], 1).float()


def presence(sizes_BN1: Tensor) -> Tensor:
    """1 for every token that stands for something, 0 for an absent one: (B, N, 1) fp32."""
    return (sizes_BN1 > 0).float()


def attend_with_bias(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    sizes_BN1: Tensor,
    *,
    prefix_change: int,
    absent: bool,
    attn_mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Proportional attention: softmax(q k^T * scale + log size + position bias) v.

    Args:
        queries: (B, H, M, D) or (B * H, M, D).
        keys: (B, H, N, D) or (B * H, N, D).
        values: as `keys`.
        sizes_BN1: fp32 sizes of the tokens.
        prefix_change: as in `log_size_bias`.
        absent: as in `log_size_bias`.
        attn_mask: a bias of the model's own, that broadcasts to (B, H, M, N).
        options: further ones of `scaled_dot_product_attention`; a scale is among them.
    """
    bias = log_size_bias(sizes_BN1, queries, prefix_change, absent=absent)
    bias = bias if attn_mask is None else bias + attn_mask
    return _attend(queries, keys, values, attn_mask=bias, **options)


def attend_with_expanded_bias(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    sizes_BN1: Tensor,
    *,
    prefix_change: int,
    absent: bool,
    attn_mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """`attend_with_bias` with a row of the bias for every query, (B, 1, M, N) or (B * H, M, N).

    For an engine that broadcasts a bias over batch and heads only.
    """
    bias = log_size_bias(sizes_BN1, queries, prefix_change, absent=absent)
    bias = bias.expand(*bias.shape[:-2], queries.shape[-2], bias.shape[-1])
    bias = bias if attn_mask is None else bias + attn_mask
    return _attend(queries, keys, values, attn_mask=bias, **options)


def attend_with_folded_bias(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    sizes_BN1: Tensor,
    *,
    prefix_change: int,
    absent: bool,
    scale: float | None = None,
    **options: Any,
) -> Tensor:
    """`attend_with_bias` with log(size) as one more channel, in no mask: [q, 1] [k, log(size) / scale]^T.

    A mask of the model's own is among `options`. Heads are padded with zeros to the next multiple of 8 channels, which
    fused kernels ask for; the padding of the values is cut off the result.
    """
    width = keys.shape[-1]
    scale = 1 / math.sqrt(width) if scale is None else scale
    padding = 8 - width % 8
    first = functional.pad(keys.new_ones(1), (0, padding - 1))
    bias = log_size_bias(sizes_BN1, keys, prefix_change, absent=absent)
    bias_column = (bias / scale).transpose(-1, -2)
    if absent and abs(LOG_ABSENT) / scale > torch.finfo(bias.dtype).max:  # fp16, and a scale below 1 / 31
        bias_column = bias_column.clamp_min(torch.finfo(bias.dtype).min)
    padded_queries = torch.cat((queries, first.expand(*queries.shape[:-1], padding)), dim=-1)
    padded_keys = torch.cat((keys, (bias_column * first).expand(*keys.shape[:-1], padding)), dim=-1)
    padded_values = functional.pad(values, (0, padding))
    padded = _attend(padded_queries, padded_keys, padded_values, scale=scale, **options)
    attended: Tensor = torch.ops.aten.slice.Tensor(padded, -1, 0, width)
    return attended


def log_size_bias(sizes_BN1: Tensor, queries: Tensor, prefix_change: int, *, absent: bool = False) -> Tensor:
    """log(size), to be added to the logits.

    Args:
        sizes_BN1: fp32 sizes of the tokens.
        queries: (B, H, M, D) or (B * H, M, D); gives the dtype and the number of axes.
        prefix_change: tokens that the keys have more (positive) or fewer (negative) in front than `sizes_BN1`.
        absent: whether sizes may be 0; such a token gets `LOG_ABSENT`.

    Returns:
        (B, 1, 1, N) or (B * H, 1, N).
    """
    sizes_BN1 = aligned_sizes(sizes_BN1, prefix_change)
    log_BN1 = sizes_BN1.log()
    if absent:
        log_BN1 = torch.where(sizes_BN1 > 0, log_BN1, LOG_ABSENT)
    bias_BN1 = log_BN1.to(queries.dtype)
    if queries.dim() == 4:
        return bias_BN1.reshape(-1, 1, 1, bias_BN1.shape[1])
    bias_B1N = bias_BN1.transpose(1, 2)
    return bias_B1N.repeat_interleave(queries.shape[0] // bias_B1N.shape[0], dim=0)


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


def _attend(queries: Tensor, keys: Tensor, values: Tensor, **options: Any) -> Tensor:
    attended: Tensor = torch.ops.aten.scaled_dot_product_attention.default(queries, keys, values, **options)
    return attended
