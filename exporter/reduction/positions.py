"""Tokens' own positions, and the tables that are read by them. Eager reference and graph in one.

A token that others merge into stays where it was: rotary tables and relative-position biases treat it as they treat
the token of that place. That is sound in the sense that attention never sees a position that the model was not trained
on, and is exact for every token that nothing merged into.

Shapes: B images, N tokens at first, K tokens now.
"""

import torch
from torch import Tensor
from torch.nn import functional

from exporter.reduction.match import Match
from exporter.reduction.merge import take


def positions_of_kept(positions_BN: Tensor | None, match: Match) -> Tensor:
    """Where the tokens that stay were at first, int64 (B, K).

    Args:
        positions_BN: int64, where the tokens before the match were; None for 0..N-1.
        match: of a reduction method.
    """
    if positions_BN is None:
        return match.kept_BK
    return take(positions_BN.unsqueeze(2), match.kept_BK).squeeze(2)


def entries_at(
    table: Tensor, positions_BK: Tensor, token_axes: tuple[int, ...], image_axis: int, *, prefix_change: int
) -> Tensor:
    """What a table holds for the tokens of every image.

    Args:
        table: the same for every image; `token_axes` have N entries and `image_axis` has one.
        positions_BK: int64, where the tokens were at first.
        token_axes: one axis, or two for a table of pairs.
        image_axis: the axis that gets an entry for every image.
        prefix_change: tokens that the table has more (positive) or fewer (negative) in front than the positions count.

    Returns:
        The table with K entries on `token_axes`, and B on `image_axis`.
    """
    index = own_positions(positions_BK, prefix_change)
    count = table.shape[token_axes[0]]
    tokens_first = table.movedim(token_axes, tuple(range(len(token_axes))))
    others = [size for axis, size in enumerate(table.shape) if axis not in (*token_axes, image_axis)]
    if len(token_axes) == 2:
        index = index.unsqueeze(2) * count + index.unsqueeze(1)
    found = functional.embedding(index, tokens_first.reshape(count ** len(token_axes), -1))
    found = found.reshape(*index.shape, *others)
    return found.movedim(tuple(range(index.dim())), (image_axis, *token_axes))


def own_positions(positions_BK: Tensor, prefix_change: int) -> Tensor:
    """Positions among tokens of which there are more or fewer in front: (B, K + prefix_change) int64."""
    if prefix_change <= 0:
        return positions_BK[:, -prefix_change:] + prefix_change
    added_P = torch.arange(prefix_change, device=positions_BK.device)
    return torch.cat((added_P.expand(len(positions_BK), -1), positions_BK + prefix_change), dim=1)
