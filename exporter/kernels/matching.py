"""Matching on a GPU: two launches a block, of grids over images and tiles of tokens.

The first launch scores tokens, the second one ranks the scores by comparing them and writes the match. Only indices
leave: positions and slots in range, each token once, whatever the metric holds.

Shapes: B images, H heads, N tokens, D channels of a head, K kept, R that leave.
"""

import torch
import triton
from torch import Tensor
from torch.library import triton_op, wrap_triton

from exporter.kernels.device.matching import (
    best_partner_kernel,
    deal_kernel,
    energy_kernel,
    list_tome_kernel,
    rank_kernel,
)
from exporter.reduction.match import Match
from exporter.reduction.method import Site
from exporter.reduction.methods import pitome, tome

_TILE = 64
"""Tokens of a tile; of a product's rows it is fewer, see `_rows`."""

_LARGEST_RANKED_TWICE = 1024
"""Up to this number of patches every program of PiToMe's second kernel ranks all of them; above, a launch more does."""


def launch_tome(keys_BHND: Tensor, prefix: int, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the kernels of ToMe; see `match_tome`."""
    batch, heads, tokens, width = keys_BHND.shape
    first_row, first_column = prefix + prefix % 2, prefix + 1 - prefix % 2
    rows, columns = len(range(first_row, tokens, 2)), len(range(first_column, tokens, 2))
    keys = keys_BHND.new_empty((batch, rows), dtype=torch.int32)
    partners = torch.empty_like(keys)
    tile_rows, tile = _rows(rows), _columns(width)
    wrap_triton(best_partner_kernel)[(triton.cdiv(rows, tile_rows), batch)](
        keys_BHND, keys, partners, heads, first_row, rows, first_column, columns, *_strides(keys_BHND),
        width, _padded(width), tile_rows, tile,
    )  # fmt: skip
    kept, sources, targets = _match_like(keys, tokens - r, r)
    tiles = triton.cdiv(max(rows, columns, prefix), _TILE)
    wrap_triton(list_tome_kernel)[(tiles, batch)](
        keys, partners, kept, sources, targets, first_row, rows, first_column, columns, prefix, r, _TILE
    )
    return kept, sources, targets


def launch_pitome(keys_BHND: Tensor, prefix: int, r: int, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the kernels of PiToMe; see `match_pitome`."""
    batch, heads, tokens, width = keys_BHND.shape
    patches, padded = tokens - prefix, _padded(width)
    rows, tile = _rows(patches), _columns(width)
    grid = (triton.cdiv(max(patches, prefix), rows), batch)
    keys = keys_BHND.new_empty((batch, patches), dtype=torch.int32)
    wrap_triton(energy_kernel)[grid](
        keys_BHND, keys, heads, prefix, patches, margin, *_strides(keys_BHND), width, padded, rows, tile
    )
    ranked = patches > _LARGEST_RANKED_TWICE
    if ranked:
        scores, keys = keys, torch.empty_like(keys)
        wrap_triton(rank_kernel)[(triton.cdiv(patches, _TILE), batch)](scores, keys, patches, _TILE)
    kept, sources, targets = _match_like(keys, tokens - r, r)
    wrap_triton(deal_kernel)[grid](
        keys_BHND, keys, kept, sources, targets, heads, prefix, patches, r, *_strides(keys_BHND),
        width, padded, rows, tile, ranked,
    )  # fmt: skip
    return kept, sources, targets


@triton_op("exporter::match_tome", mutates_args=())
def match_tome(keys_BHND: Tensor, prefix: int, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions that stay (B, K), that leave (B, R), and the slots these merge into (B, R), int64; see `tome.decide`.

    Args:
        keys_BHND: fp32, fp16 or bf16, of any strides.
        prefix: protected tokens in front.
        r: 0 < r <= (N - prefix) // 2.
    """
    return launch_tome(keys_BHND, prefix, r)


@triton_op("exporter::match_pitome", mutates_args=())
def match_pitome(keys_BHND: Tensor, prefix: int, r: int, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `match_tome`, by `pitome.decide`; `margin` is that of this block."""
    return launch_pitome(keys_BHND, prefix, r, margin)


def decide_tome(compared: Tensor, *signals: Tensor, at: Site, metric: str, size_penalty: float) -> Match:
    """`tome.decide` as kernels, for the keys alone; by operators with other options."""
    if metric != "keys" or size_penalty:
        return tome.decide(compared, *signals, at=at, size_penalty=size_penalty)
    return Match(*torch.ops.exporter.match_tome(compared, at.prefix, at.r))


def decide_tofu(keys_BHND: Tensor, *, at: Site, **_options: object) -> Match:
    """`tofu.decide` as kernels."""
    return Match(*torch.ops.exporter.match_tome(keys_BHND, at.prefix, at.r))._replace(dropped=at.dropped)


def decide_pitome(
    compared: Tensor, *, at: Site, margin: float, energy: str, metric: str, bipartite: str, deal: str
) -> Match:
    """`pitome.decide` as kernels where keys and ELU choose the 2r patches; by operators in other blocks and options."""
    if metric != "keys" or energy != "elu" or deal != "alternate" or pitome.is_bipartite(bipartite, at):
        return pitome.decide(compared, at=at, margin=margin, energy=energy, bipartite=bipartite, deal=deal)
    depth_margin = margin * (1 - at.depth)
    return Match(*torch.ops.exporter.match_pitome(compared, at.prefix, at.r, depth_margin))


@match_tome.register_fake
def _(keys_BHND: Tensor, prefix: int, r: int) -> tuple[Tensor, Tensor, Tensor]:
    return _match_like(keys_BHND, keys_BHND.shape[2] - r, r)


@match_pitome.register_fake
def _(keys_BHND: Tensor, prefix: int, r: int, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    return _match_like(keys_BHND, keys_BHND.shape[2] - r, r)


@match_tome.register_kernel("cpu")
def _(keys_BHND: Tensor, prefix: int, r: int) -> tuple[Tensor, Tensor, Tensor]:
    return _indices(tome.decide(keys_BHND, at=Site(r, 0, prefix, 0.0)))


@match_pitome.register_kernel("cpu")
def _(keys_BHND: Tensor, prefix: int, r: int, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    at = Site(r, 0, prefix, 0.0)
    return _indices(pitome.decide(keys_BHND, at=at, margin=margin, energy="elu", bipartite="none"))


def _indices(match: Match) -> tuple[Tensor, Tensor, Tensor]:
    kept_BK, source_BR, target_BR = match[:3]
    return kept_BK.contiguous(), source_BR.contiguous(), target_BR.contiguous()


def _match_like(keys: Tensor, kept: int, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """Room for a match on the device of `keys`."""
    batch = keys.shape[0]
    shapes = ((batch, kept), (batch, r), (batch, r))
    first, second, third = (keys.new_empty(shape, dtype=torch.int64) for shape in shapes)
    return first, second, third


def _strides(keys_BHND: Tensor) -> tuple[int, int, int, int]:
    """Of image, head, token, channel."""
    image, head, token, channel = keys_BHND.stride()
    return image, head, token, channel


def _rows(count: int) -> int:
    """Rows of a product's tile: the fewest that it can have, so that one image fills the GPU; more of many rows."""
    return 16 if count <= 256 else _TILE


def _columns(width: int) -> int:
    """Columns of a product's tile, so that three parts of both operands fit the shared memory of every GPU."""
    return _TILE if width <= 64 else _TILE // 2 if width <= 128 else _TILE // 4


def _padded(width: int) -> int:
    """What a product of tiles takes: a power of 2, at least 16."""
    return max(16, int(triton.next_power_of_2(width)))
