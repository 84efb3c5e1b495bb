"""Where the tokens are in a value.

A value that depends on the image is in one of four states: it holds no token axis (`None`); it is a grid of patches
on its way to become tokens; it has a token axis; or its tokens have been mixed in a way that no rule covers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class PatchGrid:
    """Patches on two adjacent axes (rows, columns), before they become one token axis."""

    axis: int
    rows: int
    columns: int


@dataclass(frozen=True, kw_only=True)
class TokenAxis:
    """Tokens on one axis, possibly folded together with other axes.

    The axis has `outer * tokens * inner` entries in row-major order; outer = inner = 1 is the plain case, and
    `nn.MultiheadAttention`'s (B * N, C) has outer = B.

    Attributes:
        axis: counted from the front.
        tokens: at capture, prefix tokens included.
        prefix: how many of them, the first ones, come from no patch.
    """

    axis: int
    tokens: int
    prefix: int
    outer: int = 1
    inner: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether the axis holds tokens and nothing else."""
        return self.outer == 1 and self.inner == 1


@dataclass(frozen=True, kw_only=True)
class Scrambled:
    """Tokens that were mixed: at which node, and how."""

    node: str
    reason: str


Layout = PatchGrid | TokenAxis | Scrambled | None


def shifted(layout: Layout, axis: int) -> Layout:
    """The same tokens on another axis (of a grid, its first)."""
    return replace(layout, axis=axis) if isinstance(layout, PatchGrid | TokenAxis) else layout


def axes_of(layout: Layout) -> tuple[int, ...]:
    """The axes that hold tokens; none where there are no tokens to speak of."""
    match layout:
        case PatchGrid():
            return (layout.axis, layout.axis + 1)
        case TokenAxis():
            return (layout.axis,)
        case _:
            return ()


def axis_text(layout: Layout) -> str:
    """Where the tokens of a value are: `tokens@1`, `tokens@0*2` for an axis that holds more, `grid@2`, or nothing."""
    match layout:
        case TokenAxis():
            folded = layout.outer * layout.inner
            return f"tokens@{layout.axis}" + (f"*{folded}" if folded > 1 else "")
        case PatchGrid():
            return f"grid@{layout.axis}"
        case _:
            return ""


def regroup(layout: PatchGrid | TokenAxis, before: Sequence[int], after: Sequence[int]) -> Layout | str:
    """The layout after a reshape from shape `before` to shape `after`, or the reason why tokens do not survive it."""
    leading, tokens, trailing = _extent(layout, before)
    if isinstance(layout, PatchGrid) and (grid := _kept_grid(layout, leading, after)):
        return grid
    for axis, size in enumerate(after):
        left, right = math.prod(after[:axis]), math.prod(after[axis + 1 :])
        if size % tokens or leading % left or trailing % right:
            continue
        outer, inner = leading // left, trailing // right
        if outer * tokens * inner == size:
            prefix = layout.prefix if isinstance(layout, TokenAxis) else 0
            return TokenAxis(axis=axis, tokens=tokens, prefix=prefix, outer=outer, inner=inner)
    return (
        f"it splits the {tokens} tokens over several axes ({_shape(before)} to {_shape(after)}), as windowed and "
        "hierarchical models do"
    )


def _extent(layout: PatchGrid | TokenAxis, shape: Sequence[int]) -> tuple[int, int, int]:
    """Entries before the tokens, tokens, entries after them, in row-major order."""
    if isinstance(layout, PatchGrid):
        leading, rest = math.prod(shape[: layout.axis]), math.prod(shape[layout.axis + 2 :])
        return leading, layout.rows * layout.columns, rest
    leading = math.prod(shape[: layout.axis]) * layout.outer
    return leading, layout.tokens, math.prod(shape[layout.axis + 1 :]) * layout.inner


def _kept_grid(grid: PatchGrid, leading: int, after: Sequence[int]) -> PatchGrid | None:
    for axis in range(len(after) - 1):
        if tuple(after[axis : axis + 2]) == (grid.rows, grid.columns) and math.prod(after[:axis]) == leading:
            return PatchGrid(axis=axis, rows=grid.rows, columns=grid.columns)
    return None


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
