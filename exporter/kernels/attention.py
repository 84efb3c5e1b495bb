"""Attention that counts every key as often as it has originals, in one launch, from views of any strides.

The packed projection of a block is read where it lies, and the result lies as the next product reads it, so that no
transpose is left. log(size) is added inside: there is no mask.

Shapes: B images, H heads, M queries, N keys, D channels of a head.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import triton_op, wrap_triton

from exporter.graph.fp8 import FP8, quantize_fp8
from exporter.graph.operators import TRAITS, Trait
from exporter.kernels.device.attention import attention_kernel
from exporter.reduction.sizes import LOG_ABSENT, attend_with_bias

_LOG2_E = 1.4426950408889634


def launch_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    sizes_BN1: Tensor,
    change: int,
    scale: float,
    factor: float,
    dtype: torch.dtype,
) -> Tensor:
    """Launch the kernel of `attend`."""
    (batch, heads, count, width), tokens = queries.shape, keys.shape[2]
    out = queries.new_empty((batch, count, heads, width), dtype=dtype)
    rows, padded = _tile(count, 64), max(16, triton.next_power_of_2(width))
    columns = _tile(tokens, 64 if padded * queries.element_size() <= 128 else 32)
    wrap_triton(attention_kernel)[(triton.cdiv(count, rows), batch * heads)](
        queries, keys, values, sizes_BN1.contiguous(), out, heads, count, tokens, change, scale, factor,
        *queries.stride(), *keys.stride(), *values.stride(),
        width, padded, rows, columns, _LOG2_E, LOG_ABSENT,
        "ieee" if queries.dtype == torch.float32 else "tf32",
    )  # fmt: skip
    return out.transpose(1, 2)


@triton_op("exporter::attend", mutates_args=())
def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    sizes_BN1: Tensor,
    change: int,
    scale: float,
    factor: float,
    dtype: torch.dtype,
) -> Tensor:
    """softmax(q k^T * scale + log size) v as a view (B, H, M, D) of contiguous (B, M, H, D).

    Args:
        queries: (B, H, M, D), fp32, fp16 or bf16, of any strides.
        keys: (B, H, N, D), likewise.
        values: as `keys`.
        sizes_BN1: fp32, of the tokens that the keys have, less `change`. 0 for an absent token.
        change: tokens that the keys have more (positive, of size 1) or fewer (negative) in front than the sizes.
        scale: of the logits.
        factor: on the result: 1, or one over the unit of numbers in e4m3.
        dtype: of the result.
    """
    return launch_attention(queries, keys, values, sizes_BN1, change, scale, factor, dtype)


TRAITS[torch.ops.exporter.attend.default] = Trait.ATTENTION


@attend.register_fake
def _(queries: Tensor, *rest: Any) -> Tensor:
    return queries.new_empty(queries.transpose(1, 2).shape, dtype=rest[-1]).transpose(1, 2)


@attend.register_kernel("cpu")
def _attend_on_cpu(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    sizes_BN1: Tensor,
    change: int,
    scale: float,
    factor: float,
    dtype: torch.dtype,
) -> Tensor:
    attended = attend_with_bias(
        queries, keys, values, sizes_BN1, prefix_change=change, absent=True, scale=scale
    )
    return _scaled(attended, factor, dtype).transpose(1, 2).contiguous().transpose(1, 2)


def attend_with_kernel(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    sizes_BN1: Tensor,
    *,
    prefix_change: int,
    absent: bool,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
    factor: float = 1.0,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Tensor:
    """`attend_with_bias` as a kernel; as operators where heads are no axis of their own, or a mask or so is given.

    The result is multiplied by `factor` and given in `dtype`, by default that of the queries.
    """
    dtype = dtype or queries.dtype
    if queries.dim() != 4 or attn_mask is not None or any(options.values()):
        as_operators = attend_with_bias(
            queries,
            keys,
            values,
            sizes_BN1,
            prefix_change=prefix_change,
            absent=absent,
            attn_mask=attn_mask,
            scale=scale,
            **options,
        )
        return _scaled(as_operators, factor, dtype)
    scale = 1 / math.sqrt(queries.shape[-1]) if scale is None else scale
    attended: Tensor = torch.ops.exporter.attend(
        queries, keys, values, sizes_BN1, prefix_change, scale, factor, dtype
    )
    return attended


def _scaled(attended: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
    if dtype == FP8:
        return quantize_fp8(attended, 1 / factor)
    return attended if factor == 1 and attended.dtype == dtype else (attended * factor).to(dtype)


def _tile(count: int, most: int) -> int:
    """Rows or columns of a tile, at least what a product takes."""
    return min(most, max(16, int(triton.next_power_of_2(count))))
