"""Residual sum, merge and LayerNorm on a GPU: one launch, a program for every row that comes out.

All arithmetic is in fp32, whatever is stored; sums run in a fixed order.

Shapes: B images, N tokens, K kept, R that leave, C channels.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.library import triton_op, wrap_triton
from torch.nn import functional

from exporter.graph.fp8 import FP8, quantize_fp8
from exporter.kernels.device.residual import add_norm_kernel, merge_kernel
from exporter.reduction.match import Match
from exporter.reduction.merge import merge_by_lookup
from exporter.reduction.sizes import initial_sizes


def launch_add_norm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float, factor: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Launch the kernel of `add_norm`."""
    x, y = x.contiguous(), y.contiguous()
    width = x.shape[-1]
    total = torch.empty_like(x, dtype=torch.promote_types(x.dtype, y.dtype))
    normed = torch.empty_like(x, dtype=dtype)
    wrap_triton(add_norm_kernel)[(x.numel() // width,)](
        x, y, weight, bias, total, normed, eps, factor, width, triton.next_power_of_2(width)
    )
    return total, normed


def launch_merge(tokens: "_Tokens", match: "_Indices", norm: "_Norm | None") -> tuple[Tensor, Tensor, Tensor]:
    """Launch the kernel of `merge` and `merge_add_norm`; without a norm the third result is the first."""
    x, y = tokens.x.contiguous(), tokens.x if tokens.y is None else tokens.y.contiguous()
    (batch, count, width), (kept, r) = x.shape, (match.kept_BK.shape[1], match.source_BR.shape[1])
    merged = x.new_empty((batch, kept, width), dtype=torch.promote_types(x.dtype, y.dtype))
    sizes = x.new_empty((batch, kept, 1), dtype=torch.float32)
    normed = merged if norm is None else torch.empty_like(merged, dtype=norm.dtype)
    weight, bias, eps, factor = (x, x, 0.0, 1.0) if norm is None else norm[:4]
    wrap_triton(merge_kernel)[(kept, batch)](
        x, y, x if tokens.sizes is None else tokens.sizes.contiguous(),
        match.kept_BK.contiguous(), match.source_BR.contiguous(), match.target_BR.contiguous(),
        weight, bias, merged, sizes, normed, count, kept, r, r - match.dropped, eps, factor,
        width, triton.next_power_of_2(width), triton.next_power_of_2(r),
        tokens.y is not None, tokens.sizes is not None, norm is not None,
    )  # fmt: skip
    return merged, sizes, normed


class _Tokens(NamedTuple):
    """x + y, or x alone, and sizes, or 1 for every token."""

    x: Tensor
    y: Tensor | None
    sizes: Tensor | None


class _Indices(NamedTuple):
    """A match of which the last `dropped` sources merge into nothing."""

    kept_BK: Tensor
    source_BR: Tensor
    target_BR: Tensor
    dropped: int


class _Norm(NamedTuple):
    """A LayerNorm, a factor on its result, and the type of that."""

    weight: Tensor
    bias: Tensor
    eps: float
    factor: float
    dtype: torch.dtype


@triton_op("exporter::add_norm", mutates_args=())
def add_norm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float, factor: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The sum x + y and its LayerNorm over the last axis.

    Args:
        x: (..., C), fp32, fp16 or bf16.
        y: as x.
        weight: (C,).
        bias: (C,).
        eps: of the LayerNorm.
        factor: on the second result: 1, or one over the unit of numbers in e4m3.
        dtype: of the second result; the first one has that of x + y.
    """
    return launch_add_norm(x, y, weight, bias, eps, factor, dtype)


@triton_op("exporter::merge", mutates_args=())
def merge(
    tokens_BNC: Tensor,
    sizes_BN1: Tensor | None,
    kept_BK: Tensor,
    source_BR: Tensor,
    target_BR: Tensor,
    dropped: int,
) -> tuple[Tensor, Tensor]:
    """`merge_by_lookup`: tokens (B, K, C) and their sizes (B, K, 1) fp32.

    Args:
        tokens_BNC: fp32, fp16 or bf16.
        sizes_BN1: fp32; None for a size of 1 each.
        kept_BK: of the match, int64, as the next two.
        source_BR: positions that leave.
        target_BR: slots that they merge into.
        dropped: how many of the sources, the last ones, merge into nothing.
    """
    tokens = _Tokens(tokens_BNC, None, sizes_BN1)
    merged, sizes, _ = launch_merge(tokens, _Indices(kept_BK, source_BR, target_BR, dropped), None)
    return merged, sizes


@triton_op("exporter::merge_add_norm", mutates_args=())
def merge_add_norm(
    x: Tensor,
    y: Tensor,
    sizes_BN1: Tensor | None,
    kept_BK: Tensor,
    source_BR: Tensor,
    target_BR: Tensor,
    dropped: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    factor: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """`merge` of x + y, and the LayerNorm of the merged tokens in `dtype`; arguments as there and in `add_norm`."""
    match = _Indices(kept_BK, source_BR, target_BR, dropped)
    return launch_merge(_Tokens(x, y, sizes_BN1), match, _Norm(weight, bias, eps, factor, dtype))


def merge_by_kernel(
    tokens_BNC: Tensor, sizes_BN1: Tensor | None, match: Match, *, absent: bool = False
) -> tuple[Tensor, Tensor]:
    """`merge_by_lookup` as a kernel; as operators where the tokens that are dropped differ from image to image.

    Sizes may be None, for 1 each.
    """
    if isinstance(match.dropped, Tensor):
        sizes = initial_sizes(tokens_BNC) if sizes_BN1 is None else sizes_BN1
        return merge_by_lookup(tokens_BNC, sizes, match, absent=absent)
    merged: tuple[Tensor, Tensor] = torch.ops.exporter.merge(tokens_BNC, sizes_BN1, *match[:4])
    return merged


def merge_add_norm_by_kernel(
    x: Tensor,
    y: Tensor,
    sizes_BN1: Tensor | None,
    match: Match,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    factor: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """`merge_by_kernel` of x + y, and the LayerNorm of the merged tokens in `dtype`, as one kernel."""
    if isinstance(match.dropped, Tensor):
        total = x + y
        sizes = initial_sizes(total) if sizes_BN1 is None else sizes_BN1
        merged, sizes = merge_by_lookup(total, sizes, match, absent=True)
        return merged, sizes, _norm(merged, weight, bias, eps, factor, dtype)
    fused: tuple[Tensor, Tensor, Tensor] = torch.ops.exporter.merge_add_norm(
        x, y, sizes_BN1, *match[:4], weight, bias, eps, factor, dtype
    )
    return fused


@add_norm.register_fake
def _(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float, factor: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, y.dtype)), x.new_empty(
        x.shape, dtype=dtype
    )


@merge.register_fake
def _(tokens_BNC: Tensor, sizes_BN1: Tensor | None, kept_BK: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    batch, kept = kept_BK.shape
    merged = tokens_BNC.new_empty((batch, kept, tokens_BNC.shape[2]))
    return merged, tokens_BNC.new_empty((batch, kept, 1), dtype=torch.float32)


@merge_add_norm.register_fake
def _(
    x: Tensor, y: Tensor, sizes_BN1: Tensor | None, kept_BK: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    batch, kept = kept_BK.shape
    merged = x.new_empty((batch, kept, x.shape[2]), dtype=torch.promote_types(x.dtype, y.dtype))
    return (
        merged,
        x.new_empty((batch, kept, 1), dtype=torch.float32),
        torch.empty_like(merged, dtype=rest[-1]),
    )


@add_norm.register_kernel("cpu")
def _add_norm_on_cpu(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float, factor: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    total = x + y
    return total, _norm(total, weight, bias, eps, factor, dtype)


@merge.register_kernel("cpu")
def _merge_on_cpu(
    tokens_BNC: Tensor,
    sizes_BN1: Tensor | None,
    kept_BK: Tensor,
    source_BR: Tensor,
    target_BR: Tensor,
    dropped: int,
) -> tuple[Tensor, Tensor]:
    sizes = initial_sizes(tokens_BNC) if sizes_BN1 is None else sizes_BN1
    return merge_by_lookup(tokens_BNC, sizes, Match(kept_BK, source_BR, target_BR, dropped), absent=True)


@merge_add_norm.register_kernel("cpu")
def _merge_add_norm_on_cpu(
    x: Tensor,
    y: Tensor,
    sizes_BN1: Tensor | None,
    kept_BK: Tensor,
    source_BR: Tensor,
    target_BR: Tensor,
    dropped: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    factor: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    merged, sizes = _merge_on_cpu(x + y, sizes_BN1, kept_BK, source_BR, target_BR, dropped)
    return merged, sizes, _norm(merged, weight, bias, eps, factor, dtype)


def _norm(
    rows: Tensor, weight: Tensor, bias: Tensor, eps: float, factor: float, dtype: torch.dtype
) -> Tensor:
    normed = functional.layer_norm(rows.float(), weight.shape, weight.float(), bias.float(), eps)
    return quantize_fp8(normed, 1 / factor) if dtype == FP8 else (normed * factor).to(dtype)
