"""Attention that counts every key as often as it has originals, over views of any strides."""

import triton
import triton.language as tl


@triton.jit
def attention_kernel(
    Q, K, V, SIZES, OUT, heads, queries, keys, change, scale, factor,
    q_image, q_head, q_row, q_channel, k_image, k_head, k_row, k_channel, v_image, v_head, v_row, v_channel,
    D: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    LOG2_E: tl.constexpr, LOG_ABSENT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of queries of one head: softmax(q k^T * scale + log size) v * factor, keys in tiles."""
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
    attended = total * (factor / weight)[:, None]
    if OUT.dtype.element_ty == tl.float8e4nv:
        attended = tl.minimum(tl.maximum(attended, -448.0), 448.0)
    tl.store(OUT + at, attended.to(OUT.dtype.element_ty), mask=q_mask)
