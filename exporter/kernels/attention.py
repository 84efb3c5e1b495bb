"""Attention that counts every key as often as it has originals, in one launch, from views of any strides.

The packed projection of a block is read where it lies, and the result lies as the next product reads it, so that no
transpose is left. log(size) is added inside: there is no mask.

Shapes: B images, H heads, M queries, N keys, D channels of a head.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from exporter.reduction.sizes import LOG_ABSENT, attend_with_bias

_LOG2_E = 1.4426950408889634


@triton.jit
def attention_kernel(
    Q, K, V, SIZES, OUT, heads, queries, keys, change, scale,
    q_image, q_head, q_row, q_channel, k_image, k_head, k_row, k_channel, v_image, v_head, v_row, v_channel,
    D: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    LOG2_E: tl.constexpr, LOG_ABSENT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of queries of one head: softmax(q k^T * scale + log size) v, keys in tiles."""
    image, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, PADDED)
    wide = channel[None, :] < D
    Q += image * q_image + head * q_head
    K += image * k_image + head * k_head
    V += image * v_image + head * v_head
    q_mask = (row[:, None] < queries) & wide
    q = tl.load(Q + row[:, None] * q_row + channel[None, :] * q_channel, mask=q_mask, other=0.0)
    total = tl.zeros((ROWS, PADDED), tl.float32)
    largest = tl.full((ROWS,), -float("inf"), tl.float32)
    weight = tl.zeros((ROWS,), tl.float32)
    for start in range(0, keys, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        live = column < keys
        mask = live[:, None] & wide
        k = tl.load(K + column[:, None] * k_row + channel[None, :] * k_channel, mask=mask, other=0.0)
        v = tl.load(V + column[:, None] * v_row + channel[None, :] * v_channel, mask=mask, other=0.0)
        sized = live & (column >= change)
        size = tl.load(SIZES + image * (keys - change) + column - change, mask=sized, other=1.0)
        bias = tl.where(size > 0, tl.log(tl.where(size > 0, size, 1.0)), LOG_ABSENT)
        logits = (tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale + bias[None, :]) * LOG2_E
        logits = tl.where(live[None, :], logits, -float("inf"))
        larger = tl.maximum(largest, tl.max(logits, 1))
        shares = tl.exp2(logits - larger[:, None])
        kept = tl.exp2(largest - larger)
        weight = weight * kept + tl.sum(shares, 1)
        total = total * kept[:, None] + tl.dot(shares.to(v.dtype), v, input_precision=PRECISION)
        largest = larger
    at = ((image * queries + row)[:, None] * heads + head) * D + channel[None, :]
    tl.store(OUT + at, (total / weight[:, None]).to(OUT.dtype.element_ty), mask=q_mask)


def launch_attention(
    queries: Tensor, keys: Tensor, values: Tensor, sizes_BN1: Tensor, change: int, scale: float
) -> Tensor:
    """Launch the kernel of `attend`."""
    (batch, heads, count, width), tokens = queries.shape, keys.shape[2]
    out = queries.new_empty((batch, count, heads, width))
    rows, padded = _tile(count, 64), max(16, triton.next_power_of_2(width))
    columns = _tile(tokens, 64 if padded * queries.element_size() <= 128 else 32)
    wrap_triton(attention_kernel)[(triton.cdiv(count, rows), batch * heads)](
        queries, keys, values, sizes_BN1, out, heads, count, tokens, change, scale,
        *queries.stride(), *keys.stride(), *values.stride(),
        width, padded, rows, columns, _LOG2_E, LOG_ABSENT,
        "ieee" if queries.dtype == torch.float32 else "tf32",
    )  # fmt: skip
    return out.transpose(1, 2)


@triton_op("exporter::attend", mutates_args=())
def attend(
    queries: Tensor, keys: Tensor, values: Tensor, sizes_BN1: Tensor, change: int, scale: float
) -> Tensor:
    """softmax(q k^T * scale + log size) v as a view (B, H, M, D) of contiguous (B, M, H, D).

    Args:
        queries: (B, H, M, D), fp32, fp16 or bf16, of any strides.
        keys: (B, H, N, D), likewise.
        values: as `keys`.
        sizes_BN1: fp32, contiguous; of the tokens that the keys have, less `change`. 0 for an absent token.
        change: tokens that the keys have more (positive, of size 1) or fewer (negative) in front than the sizes.
        scale: of the logits.
    """
    return launch_attention(queries, keys, values, sizes_BN1, change, scale)


@attend.register_fake
def _(
    queries: Tensor, keys: Tensor, values: Tensor, sizes_BN1: Tensor, change: int, scale: float
) -> Tensor:
    return queries.new_empty(queries.transpose(1, 2).shape).transpose(1, 2)


@attend.register_kernel("cpu")
def _attend_on_cpu(
    queries: Tensor, keys: Tensor, values: Tensor, sizes_BN1: Tensor, change: int, scale: float
) -> Tensor:
    attended = attend_with_bias(
        queries, keys, values, sizes_BN1, prefix_change=change, absent=True, scale=scale
    )
    return attended.transpose(1, 2).contiguous().transpose(1, 2)


def attend_with_kernel(
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
    """`attend_with_bias` as a kernel; as operators where heads are no axis of their own, or a mask or so is given."""
    if queries.dim() != 4 or any(options.values()):
        return attend_with_bias(
            queries, keys, values, sizes_BN1, prefix_change=prefix_change, absent=absent, scale=scale, **options
        )
    scale = 1 / math.sqrt(queries.shape[-1]) if scale is None else scale
    attended: Tensor = torch.ops.exporter.attend(queries, keys, values, sizes_BN1, prefix_change, scale)
    return attended


def _tile(count: int, most: int) -> int:
    """Rows or columns of a tile, at least what a product takes."""
    return min(most, max(16, int(triton.next_power_of_2(count))))
