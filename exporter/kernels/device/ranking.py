"""Device functions of the matching kernels: a total order of scores, ranks, cosines.

Scores are compared as integers that are ordered as floats are, with NaN above all, as in `torch.sort`. So ranks are a
permutation whatever the scores are, and no index can be out of range.
"""

import triton
import triton.language as tl


@triton.jit
def sort_keys(scores):
    """fp32 scores as int32 in the same order; NaN is the largest, and both zeros are equal."""
    bits = tl.where(scores == 0, 0.0, scores).to(tl.int32, bitcast=True)
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(scores != scores, 0x7FFFFFFF, keys)


@triton.jit
def ranks(KEYS, index, count, BLOCK: tl.constexpr):
    """Place of the keys at `index` in descending order of all `count` keys, the lower index first on ties."""
    own = tl.load(KEYS + index, mask=index < count, other=0)
    rank = tl.zeros_like(own)
    for start in range(0, count, BLOCK):
        others = start + tl.arange(0, BLOCK)
        live = others < count
        keys = tl.load(KEYS + others, mask=live, other=0)
        larger = keys[None, :] > own[:, None]
        earlier = (keys[None, :] == own[:, None]) & (others[None, :] < index[:, None])
        rank += tl.sum(((larger | earlier) & live[None, :]).to(tl.int32), 1)
    return rank


@triton.jit
def unit_rows(
    METRIC, position, live, heads, head_stride, row_stride, column_stride,
    WIDTH: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Rows of the metric at token positions: mean over heads, normalised to unit length, fp32."""
    column = tl.arange(0, PADDED)
    at = METRIC + position[:, None] * row_stride + column[None, :] * column_stride
    mask = live[:, None] & (column[None, :] < WIDTH)
    total = tl.zeros((position.shape[0], PADDED), tl.float32)
    for head in range(heads):
        total += tl.load(at + head * head_stride, mask=mask, other=0.0).to(tl.float32)
    mean = total / heads
    length = tl.sqrt(tl.sum(mean * mean, 1))
    return mean / tl.where(length < 1e-12, 1e-12, length)[:, None]
