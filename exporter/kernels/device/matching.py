"""Matching: one launch scores tokens, the next one ranks the scores by comparing them and writes the match.

Only indices leave: positions and slots in range, each token once, whatever the metric holds.
"""

import triton
import triton.language as tl

from exporter.kernels.device.ranking import ranks, sort_keys, unit_rows


@triton.jit
def best_partner_kernel(
    METRIC, KEYS, PARTNERS, heads, first_row, rows, first_column, columns,
    image_stride, head_stride, row_stride, column_stride,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """For every second token from `first_row`: the most similar of every second token from `first_column`.

    Stores the similarity as a sort key, and the partner's index among its own; the lowest one on ties.
    """
    image = tl.program_id(1).to(tl.int64)
    METRIC += image * image_stride
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mine = unit_rows(
        METRIC, first_row + 2 * row, row < rows, heads, head_stride, row_stride, column_stride, WIDTH, PADDED
    )
    best = tl.full((ROWS,), -0x80000000, tl.int32)
    partner = tl.zeros((ROWS,), tl.int32)
    for start in range(0, columns, TILE):
        column = start + tl.arange(0, TILE)
        live = column < columns
        theirs = unit_rows(
            METRIC,
            first_column + 2 * column,
            live,
            heads,
            head_stride,
            row_stride,
            column_stride,
            WIDTH,
            PADDED,
        )
        keys = sort_keys(tl.dot(mine, tl.trans(theirs), input_precision="tf32x3"))
        keys = tl.where(live[None, :], keys, -0x80000000)
        best_here = tl.max(keys, 1)
        at_best = tl.where(keys == best_here[:, None], column[None, :], 0x7FFFFFFF)
        partner = tl.where(best_here > best, tl.min(at_best, 1), partner)
        best = tl.maximum(best, best_here)
    tl.store(KEYS + image * rows + row, best, mask=row < rows)
    tl.store(PARTNERS + image * rows + row, partner, mask=row < rows)


@triton.jit
def list_tome_kernel(
    KEYS, PARTNERS, KEPT, SOURCES, TARGETS, first_row, rows, first_column, columns, prefix, r,
    TILE: tl.constexpr,
):  # fmt: skip
    """Rank the rows; write prefix, unmerged rows and columns as kept, the r best rows as sources with their targets."""
    image = tl.program_id(1).to(tl.int64)
    tile = tl.program_id(0)
    kept = prefix + rows + columns - r
    KEYS += image * rows
    KEPT += image * kept
    merged_before = 0
    for earlier in range(tile):
        merged_before += tl.sum(
            (ranks(KEYS, earlier * TILE + tl.arange(0, TILE), rows, TILE) < r).to(tl.int32), 0
        )
    index = tile * TILE + tl.arange(0, TILE)
    live = index < rows
    rank = ranks(KEYS, index, rows, TILE)
    merged = live & (rank < r)
    merged_count = merged.to(tl.int32)
    merged_before += tl.cumsum(merged_count, 0) - merged_count
    position = first_row + 2 * index
    tl.store(KEPT + prefix + index - merged_before, position.to(tl.int64), mask=live & (rank >= r))
    tl.store(KEPT + index, index.to(tl.int64), mask=index < prefix)
    first_slot = prefix + rows - r
    tl.store(KEPT + first_slot + index, (first_column + 2 * index).to(tl.int64), mask=index < columns)
    partner = tl.load(PARTNERS + image * rows + index, mask=merged, other=0)
    tl.store(SOURCES + image * r + rank, position.to(tl.int64), mask=merged)
    tl.store(TARGETS + image * r + rank, (first_slot + partner).to(tl.int64), mask=merged)


@triton.jit
def energy_kernel(
    METRIC, KEYS, heads, prefix, patches, margin,
    image_stride, head_stride, row_stride, column_stride,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Energy of every patch as a sort key: the mean over all patches of ELU(cosine - margin)."""
    image = tl.program_id(1).to(tl.int64)
    METRIC += image * image_stride
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mine = unit_rows(
        METRIC, prefix + row, row < patches, heads, head_stride, row_stride, column_stride, WIDTH, PADDED
    )
    energy = tl.zeros((ROWS,), tl.float32)
    for start in range(0, patches, TILE):
        column = start + tl.arange(0, TILE)
        live = column < patches
        theirs = unit_rows(
            METRIC, prefix + column, live, heads, head_stride, row_stride, column_stride, WIDTH, PADDED
        )
        above = tl.dot(mine, tl.trans(theirs), input_precision="tf32x3") - margin
        elu = tl.where(above > 0, above, tl.exp(tl.minimum(above, 0.0)) - 1)
        elu = tl.where(above != above, above, elu)
        energy += tl.sum(tl.where(live[None, :], elu, 0.0), 1)
    tl.store(KEYS + image * patches + row, sort_keys(energy / patches), mask=row < patches)


@triton.jit
def rank_kernel(KEYS, RANKS, patches, TILE: tl.constexpr):
    """Ranks of all patches, for more of them than the kernel after this one should rank in every program."""
    image = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * TILE + tl.arange(0, TILE)
    rank = ranks(KEYS + image * patches, index, patches, TILE)
    tl.store(RANKS + image * patches + index, rank, mask=index < patches)


@triton.jit
def deal_kernel(
    METRIC, KEYS, KEPT, SOURCES, TARGETS, heads, prefix, patches, r,
    image_stride, head_stride, row_stride, column_stride,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, RANKED: tl.constexpr,
):  # fmt: skip
    """Deal the 2r patches of highest rank into sources and destinations, pair them, and write the match.

    KEYS are sort keys of energies, or, if RANKED, their ranks.
    """
    image = tl.program_id(1).to(tl.int64)
    tile = tl.program_id(0)
    METRIC += image * image_stride
    KEYS += image * patches
    KEPT += image * (prefix + patches - r)
    first_slot = prefix + patches - 2 * r
    own = tile * ROWS + tl.arange(0, ROWS)
    own_live = own < patches
    if RANKED:
        own_rank = tl.load(KEYS + own, mask=own_live, other=0x7FFFFFFF)
    else:
        own_rank = ranks(KEYS, own, patches, TILE)
    mine = unit_rows(
        METRIC, prefix + own, own_live, heads, head_stride, row_stride, column_stride, WIDTH, PADDED
    )
    dealt_before = 0
    best = tl.full((ROWS,), -0x80000000, tl.int32)
    partner = tl.zeros((ROWS,), tl.int32)
    for start in range(0, patches, TILE):
        index = start + tl.arange(0, TILE)
        live = index < patches
        if RANKED:
            rank = tl.load(KEYS + index, mask=live, other=0x7FFFFFFF)
        else:
            rank = ranks(KEYS, index, patches, TILE)
        dealt = live & (rank < 2 * r)
        dealt_before += tl.sum((dealt & (index < tile * ROWS)).to(tl.int32), 0)
        destination = dealt & (rank % 2 == 1)
        theirs = unit_rows(
            METRIC, prefix + index, destination, heads, head_stride, row_stride, column_stride, WIDTH, PADDED
        )
        keys = sort_keys(tl.dot(mine, tl.trans(theirs), input_precision="tf32x3"))
        keys = tl.where(destination[None, :], keys, -0x80000000)
        best_here = tl.max(keys, 1)
        tied = (keys == best_here[:, None]) & destination[None, :]
        partner_here = tl.min(tl.where(tied, rank[None, :], 0x7FFFFFFF), 1)
        closer = (best_here > best) | ((best_here == best) & (partner_here < partner))
        partner = tl.where(closer & (partner_here < 2 * r), partner_here, partner)
        best = tl.maximum(best, best_here)
    own_dealt = own_live & (own_rank < 2 * r)
    dealt_count = own_dealt.to(tl.int32)
    dealt_before += tl.cumsum(dealt_count, 0) - dealt_count
    position = (prefix + own).to(tl.int64)
    tl.store(KEPT + own, own.to(tl.int64), mask=own < prefix)
    tl.store(KEPT + prefix + own - dealt_before, position, mask=own_live & (own_rank >= 2 * r))
    tl.store(KEPT + first_slot + own_rank // 2, position, mask=own_dealt & (own_rank % 2 == 1))
    source = own_dealt & (own_rank % 2 == 0)
    tl.store(SOURCES + image * r + own_rank // 2, position, mask=source)
    tl.store(TARGETS + image * r + own_rank // 2, (first_slot + partner // 2).to(tl.int64), mask=source)
