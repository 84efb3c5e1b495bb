"""Where tokens stand, and the tables that are read by that. Eager reference and graph in one.

A bias of positions and any other table is read at a token's own position: a token that others merge into stays where it
was, so that attention meets no position that the model was not trained on. A rotary table is read at the mean of the
angles of all that merged, weighted by size, as ToMe's author suggests (facebookresearch/ToMe, issue 29); on small ViTs
that were trained with rotary tables it keeps closer to the dense model than the own position does.

Shapes: B images, T tokens at first, K tokens now, X entries of a table by token.
"""

import torch
from torch import Tensor
from torch.nn import functional

from exporter.reduction.match import Match
from exporter.reduction.merge import merge_by_lookup, take

SHORTEST = 0.25
"""Angles whose mean vector is shorter than this nearly cancel: its direction is rounding, and it is not made longer."""


def positions_of_kept(positions_BN: Tensor | None, match: Match) -> Tensor:
    """Where the tokens that stay were at first, int64 (B, K).

    Args:
        positions_BN: int64, where the tokens before the match were; None for 0..N-1.
        match: of a reduction method.
    """
    if positions_BN is None:
        return match.kept_BK
    return take(positions_BN.unsqueeze(2), match.kept_BK).squeeze(2)


def shares_of_kept(shares_BNT: Tensor | None, sizes_BN1: Tensor, match: Match, *, absent: bool) -> Tensor:
    """What each token that stays is the mean of: fp32 (B, K, T), rows sum to 1.

    Args:
        shares_BNT: of the tokens before the match; None where each of them is itself.
        sizes_BN1: fp32 sizes of the tokens before the match.
        match: of a reduction method.
        absent: as in `merge`.
    """
    if shares_BNT is None:
        count = sizes_BN1.shape[1]
        shares_BNT = torch.eye(count, device=sizes_BN1.device).expand(sizes_BN1.shape[0], -1, -1)
    return merge_by_lookup(shares_BNT, sizes_BN1, match, absent=absent)[0]


def entries_at(
    table: Tensor, positions_BK: Tensor, *, token_axes: tuple[int, ...], image_axis: int, prefix_change: int
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
    if len(token_axes) == 2:
        index = index.unsqueeze(2) * table.shape[token_axes[0]] + index.unsqueeze(1)
    found = functional.embedding(index, _by_token(table, token_axes))
    return _placed(found, table, token_axes, image_axis)


def rotations_at(
    sine: Tensor,
    cosine: Tensor,
    shares_BKT: Tensor,
    *,
    token_axes: tuple[int, ...],
    image_axis: int,
    prefix_change: int,
) -> tuple[Tensor, Tensor]:
    """The sine and cosine of the mean angle of what each token is made of.

    That is the direction of the mean of the vectors (cosine, sine).

    Args:
        sine: as `table` in `entries_at`, with one token axis.
        cosine: of the same angles.
        shares_BKT: fp32, what the tokens are the mean of.
        token_axes: as in `entries_at`.
        image_axis: as in `entries_at`.
        prefix_change: as in `entries_at`.

    Returns:
        Both as `entries_at` gives them.
    """
    shares_BKT = _own_shares(shares_BKT, prefix_change)
    sine_BKX, cosine_BKX = (shares_BKT @ _by_token(each, token_axes).float() for each in (sine, cosine))
    length_BKX = (sine_BKX.square() + cosine_BKX.square()).sqrt().clamp_min(SHORTEST)
    sine_at, cosine_at = (
        _placed((mean_BKX / length_BKX).to(sine.dtype), sine, token_axes, image_axis)
        for mean_BKX in (sine_BKX, cosine_BKX)
    )
    return sine_at, cosine_at


def own_positions(positions_BK: Tensor, prefix_change: int) -> Tensor:
    """Positions among tokens of which there are more or fewer in front: (B, K + prefix_change) int64."""
    if prefix_change <= 0:
        return positions_BK[:, -prefix_change:] + prefix_change
    added_P = torch.arange(prefix_change, device=positions_BK.device)
    return torch.cat((added_P.expand(positions_BK.shape[0], -1), positions_BK + prefix_change), dim=1)


def _own_shares(shares_BKT: Tensor, prefix_change: int) -> Tensor:
    """Shares among tokens of which there are more or fewer in front."""
    if prefix_change <= 0:
        return shares_BKT[:, -prefix_change:, -prefix_change:]
    rest = functional.pad(shares_BKT, (prefix_change, 0))
    added = torch.eye(prefix_change, rest.shape[2], device=rest.device)
    return torch.cat((added.expand(rest.shape[0], -1, -1), rest), dim=1)


def _by_token(table: Tensor, token_axes: tuple[int, ...]) -> Tensor:
    """A row for each token or pair of tokens."""
    count = table.shape[token_axes[0]]
    tokens_first = table.movedim(token_axes, tuple(range(len(token_axes))))
    return tokens_first.reshape(count ** len(token_axes), -1)


def _placed(found: Tensor, table: Tensor, token_axes: tuple[int, ...], image_axis: int) -> Tensor:
    """Rows that were found for (B, K) or (B, K, K), with all axes where the table has them."""
    others = [size for axis, size in enumerate(table.shape) if axis not in (*token_axes, image_axis)]
    front = found.dim() - 1
    found = found.reshape(*found.shape[:front], *others)
    return found.movedim(tuple(range(front)), (image_axis, *token_axes))
