"""ToMe for diffusion: tokens merge before a self-attention over a feature map, and are restored after it.

Source: Bolya and Hoffman, Token Merging for Fast Stable Diffusion, CVPR Workshops 2023, sections 3.1 to 3.3. Of the
places that a target can have in its 2x2 cell, this takes the top left one in every image and step, which the published
code does where it is told not to draw them: the same engine always merges the same way.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from exporter.recipe_key import Range
from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site
from exporter.reduction.ranking import partition_top
from exporter.reduction.regret import partner_regret, ranking_regret, without_form, worst
from exporter.reduction.signals import comparable
from exporter.schedule import Grid

_CELL = 2


def decide(tokens_BNC: Tensor, *, at: Site, **_options: object) -> Match:
    """Match the r tokens that are most similar to the top left token of some 2x2 cell.

    Every other token finds the most similar of these targets by the cosine of all its channels (the lower position on
    ties); the r with the best ones merge (the lower position on ties). Rows and columns that fill no cell hold sources.

    Args:
        tokens_BNC: of the residual stream, row by row of the grid.
        at: 0 < r <= N - number of cells.

    Returns:
        A match whose output order is unmerged sources, targets.
    """
    sources, targets = _split(at)
    score_BST = _scores(tokens_BNC, sources, targets)
    best_BS, partner_BS = score_BST.max(dim=2)
    unmerged, merged = partition_top(best_BS, at.r)
    batch = tokens_BNC.shape[0]
    source_S = torch.tensor(sources, device=tokens_BNC.device)
    target_BT = torch.tensor(targets, device=tokens_BNC.device).expand(batch, -1)
    kept_BK = torch.cat((source_S[unmerged], target_BT), dim=1)
    return Match(kept_BK, source_S[merged], partner_BS.gather(1, merged) + unmerged.shape[1])


def regret(tokens_BNC: Tensor, *, match: Match, at: Site, **_options: object) -> Tensor:
    """How far a match is from the definition, (B,): see `Method.regret`.

    The larger of two shortfalls: a source's best similarity less that to its own target, and the best similarity of a
    source that stayed less the lowest of one that merged. Infinite if a target moved, or the order is another one.
    """
    sources, targets = _split(at)
    unmerged = len(sources) - at.r
    stayed_BU, target_BT = match.kept_BK[:, :unmerged], match.kept_BK[:, unmerged:]
    in_place = bool((target_BT == torch.tensor(targets)).all()) and bool((stayed_BU.diff(dim=1) > 0).all())
    partner_BR = match.target_BR - unmerged
    if not in_place or int(partner_BR.min()) < 0:
        return without_form(len(tokens_BNC))
    score_BST = _scores(tokens_BNC, sources, targets)
    place_N = torch.zeros(at.tokens, dtype=torch.int64).index_copy(
        0, torch.tensor(sources), torch.arange(len(sources))
    )
    merged_BR = place_N[match.source_BR]
    pairs_BRT = score_BST[torch.arange(len(score_BST)).unsqueeze(1), merged_BR]
    return worst(partner_regret(pairs_BRT, partner_BR), ranking_regret(score_BST.amax(dim=2), merged_BR))


def _split(at: Site) -> tuple[list[int], list[int]]:
    """Positions of sources and targets, ascending."""
    assert at.grid is not None
    rows, columns = at.grid
    targets = [
        row * columns + column
        for row in range(0, rows - _CELL + 1, _CELL)
        for column in range(0, columns - _CELL + 1, _CELL)
    ]
    return sorted({*range(rows * columns)}.difference(targets)), targets


def _scores(tokens_BNC: Tensor, sources: list[int], targets: list[int]) -> Tensor:
    """Cosines of sources (rows) and targets (columns), (B, S, T) fp32."""
    metric_BNC = comparable(tokens_BNC)
    source_BSC, target_BTC = (
        metric_BNC.index_select(1, torch.tensor(positions, device=tokens_BNC.device))
        for positions in (sources, targets)
    )
    return source_BSC @ target_BTC.transpose(1, 2)


def grid_cap(grid: Grid, *, max_downsample: int) -> int:
    """All tokens but one of every cell, on the feature maps that are large enough."""
    cells = (grid.rows // _CELL) * (grid.columns // _CELL)
    return grid.tokens - cells if cells and grid.downsampling <= max_downsample else 0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of ToMe for diffusion.

    Attributes:
        max_downsample: tokens merge where the sides of the feature map are at most this many times smaller than those
            of the latents: 1 for the largest maps only, where attention costs most, 2, 4 or 8 for smaller ones as well.
    """

    max_downsample: Annotated[int, Range(least=1)] = 1


METHOD = Method(
    name="tomesd",
    reference="Bolya and Hoffman, Token Merging for Fast Stable Diffusion, CVPR Workshops 2023",
    does="merges the tokens most similar to one of a 2x2 cell before self-attention, and restores them after it",
    licence="MIT",
    decide=decide,
    regret=regret,
    reads=("tokens",),
    grid_cap=grid_cap,
    place="around-attention",
    proportional=False,
    options=Options,
)
