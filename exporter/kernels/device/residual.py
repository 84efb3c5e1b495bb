"""Residual sum, merge and LayerNorm: one program for every row that comes out.

All arithmetic is in fp32, whatever is stored; sums run in a fixed order.
"""

import triton
import triton.language as tl


@triton.jit
def _store_norm(row, column, WEIGHT, BIAS, NORMED, eps, factor, C: tl.constexpr):
    """Store the LayerNorm of one row, times `factor`; what is too large for e4m3 becomes its largest number."""
    live = column < C
    mean = tl.sum(row, 0) / C
    centred = tl.where(live, row - mean, 0.0)
    variance = tl.sum(centred * centred, 0) / C
    weight = tl.load(WEIGHT + column, mask=live, other=0.0).to(tl.float32)
    bias = tl.load(BIAS + column, mask=live, other=0.0).to(tl.float32)
    normed = (centred * tl.rsqrt(variance + eps) * weight + bias) * factor
    if NORMED.dtype.element_ty == tl.float8e4nv:
        normed = tl.minimum(tl.maximum(normed, -448.0), 448.0)
    tl.store(NORMED + column, normed.to(NORMED.dtype.element_ty), mask=live)


@triton.jit
def _sum_row(X, Y, at, live, HAS_Y: tl.constexpr):
    """One row of x + y in fp32."""
    row = tl.load(X + at, mask=live, other=0.0).to(tl.float32)
    if HAS_Y:
        row += tl.load(Y + at, mask=live, other=0.0).to(tl.float32)
    return row


@triton.jit
def add_norm_kernel(
    X, Y, WEIGHT, BIAS, SUM, NORMED, eps, factor, C: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """One row: x + y, and its LayerNorm times `factor`."""
    column = tl.arange(0, PADDED)
    live = column < C
    start = tl.program_id(0).to(tl.int64) * C
    at = start + column
    row = _sum_row(X, Y, at, live, True)
    tl.store(SUM + at, row.to(SUM.dtype.element_ty), mask=live)
    _store_norm(row, column, WEIGHT, BIAS, NORMED + start, eps, factor, C)


@triton.jit
def merge_kernel(
    X, Y, SIZES, KEPT, SOURCES, TARGETS, WEIGHT, BIAS, MERGED, MERGED_SIZES, NORMED,
    tokens, kept, r, merging, eps, factor,
    C: tl.constexpr, PADDED: tl.constexpr, R_PADDED: tl.constexpr,
    HAS_Y: tl.constexpr, HAS_SIZES: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """One row: the size-weighted mean of a kept token and its sources in x + y, its size, its norm times `factor`."""
    slot, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = tl.arange(0, PADDED)
    live = column < C
    X += image * tokens * C
    if HAS_Y:
        Y += image * tokens * C
    if HAS_SIZES:
        SIZES += image * tokens
    position = tl.load(KEPT + image * kept + slot)
    row = _sum_row(X, Y, position * C + column, live, HAS_Y)
    size = tl.load(SIZES + position) if HAS_SIZES else 1.0
    source = tl.arange(0, R_PADDED)
    targets = tl.load(TARGETS + image * r + source, mask=source < merging, other=-1)
    waiting = targets == slot
    count = tl.sum(waiting.to(tl.int32), 0)
    if count > 0:
        row *= size
        for _ in range(count):
            first = tl.min(tl.where(waiting, source, R_PADDED), 0)
            waiting = waiting & (source != first)
            position = tl.load(SOURCES + image * r + first)
            weight = tl.load(SIZES + position) if HAS_SIZES else 1.0
            row += weight * _sum_row(X, Y, position * C + column, live, HAS_Y)
            size += weight
        row /= size
    row = tl.where(size > 0, row, 0.0)
    out = image * kept + slot
    tl.store(MERGED + out * C + column, row.to(MERGED.dtype.element_ty), mask=live)
    tl.store(MERGED_SIZES + out, size)
    if NORM:
        _store_norm(row, column, WEIGHT, BIAS, NORMED + out * C, eps, factor, C)
