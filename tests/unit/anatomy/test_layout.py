"""Regrouping against brute force: every entry is marked with its token, and the reshape is really made."""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from exporter.anatomy.layout import Layout, PatchGrid, TokenAxis, regroup

Marks = NDArray[np.int64]
Shape = tuple[int, ...]

SIZES = st.sampled_from([1, 2, 3, 4, 5, 6])


def mark_tokens(layout: TokenAxis, shape: Shape) -> Marks:
    """Return an array of `shape` whose every entry says which token it belongs to."""
    along = (np.arange(shape[layout.axis]) // layout.inner) % layout.tokens
    sides = [1] * len(shape)
    sides[layout.axis] = -1
    return np.broadcast_to(along.reshape(sides), shape).copy()


def mark_patches(grid: PatchGrid, shape: Shape) -> Marks:
    """Return an array of `shape` whose every entry says which patch it belongs to, row-major."""
    sides = [1] * len(shape)
    sides[grid.axis], sides[grid.axis + 1] = grid.rows, grid.columns
    return np.broadcast_to(np.arange(grid.rows * grid.columns).reshape(sides), shape).copy()


def token_axes(marks: Marks) -> list[int]:
    """Return the axes whose index alone says which token an entry belongs to."""
    found = []
    for axis in range(marks.ndim):
        by_index = np.moveaxis(marks, axis, 0).reshape(marks.shape[axis], -1)
        if bool((by_index == by_index[:, :1]).all()):
            found.append(axis)
    return found


@st.composite
def factorisations(draw: st.DrawFn, total: int) -> Shape:
    """Draw a shape of `total` entries."""
    shape = []
    while total > 1:
        size = draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
        shape.append(size)
        total //= size
        assume(len(shape) <= 6)
    return tuple(shape) or (1,)


@st.composite
def reshapes_of_tokens(draw: st.DrawFn) -> tuple[TokenAxis, Shape, Shape]:
    tokens, outer, inner = draw(st.integers(2, 7)), draw(SIZES), draw(SIZES)
    before, after_axis = draw(st.lists(SIZES, max_size=2)), draw(st.lists(SIZES, max_size=2))
    shape = (*before, outer * tokens * inner, *after_axis)
    layout = TokenAxis(
        axis=len(before), tokens=tokens, prefix=draw(st.integers(0, 2)), outer=outer, inner=inner
    )
    return layout, shape, draw(factorisations(math.prod(shape)))


@st.composite
def reshapes_of_patches(draw: st.DrawFn) -> tuple[PatchGrid, Shape, Shape]:
    rows, columns = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    before, behind = draw(st.lists(SIZES, max_size=2)), draw(st.lists(SIZES, max_size=2))
    shape = (*before, rows, columns, *behind)
    return (
        PatchGrid(axis=len(before), rows=rows, columns=columns),
        shape,
        draw(factorisations(math.prod(shape))),
    )


@given(reshapes_of_tokens())
@example((TokenAxis(axis=0, tokens=5, prefix=1), (5, 2, 8), (5, 8, 2)))
@example((TokenAxis(axis=1, tokens=5, prefix=1), (2, 5, 8), (10, 8)))
@example((TokenAxis(axis=0, tokens=5, prefix=1, outer=2), (10, 8), (2, 5, 4, 2)))
def test_tokens_survive_a_reshape_exactly_when_one_axis_still_tells_them(
    case: tuple[TokenAxis, Shape, Shape],
) -> None:
    layout, before, after = case
    marks = mark_tokens(layout, before).reshape(after)

    found = regroup(layout, before, after)

    assert isinstance(found, TokenAxis) == bool(token_axes(marks))
    assert isinstance(found, TokenAxis | str)


@given(reshapes_of_tokens())
def test_regrouped_layout_says_where_every_token_is(case: tuple[TokenAxis, Shape, Shape]) -> None:
    layout, before, after = case
    found = regroup(layout, before, after)
    assume(isinstance(found, TokenAxis))
    assert isinstance(found, TokenAxis)

    assert (found.tokens, found.prefix) == (layout.tokens, layout.prefix)
    np.testing.assert_array_equal(mark_tokens(found, after), mark_tokens(layout, before).reshape(after))


@given(reshapes_of_patches())
def test_patches_survive_a_reshape_exactly_when_they_can_be_told(
    case: tuple[PatchGrid, Shape, Shape],
) -> None:
    grid, before, after = case
    marks = mark_patches(grid, before).reshape(after)

    found = regroup(grid, before, after)

    np.testing.assert_array_equal(marks_of(found, after, marks), marks)
    assert isinstance(found, str) == (not token_axes(marks) and not grid_axes(marks, grid))


def marks_of(layout: Layout | str, shape: Shape, otherwise: Marks) -> Marks:
    """Return the marks that a layout claims."""
    match layout:
        case PatchGrid():
            return mark_patches(layout, shape)
        case TokenAxis():
            return mark_tokens(layout, shape)
        case _:
            return otherwise


def grid_axes(marks: Marks, grid: PatchGrid) -> list[int]:
    """Return the first axes of adjacent pairs, rows by columns, whose indices tell the patch."""
    pairs = []
    for axis in range(marks.ndim - 1):
        if marks.shape[axis : axis + 2] == (grid.rows, grid.columns):
            claimed = PatchGrid(axis=axis, rows=grid.rows, columns=grid.columns)
            if bool((mark_patches(claimed, marks.shape) == marks).all()):
                pairs.append(axis)
    return pairs


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param((2, 197, 768), (2, 197, 12, 64), (1, 1, 1), id="heads split off"),
        pytest.param((197, 2, 768), (197, 24, 64), (0, 1, 1), id="images and heads in one axis"),
        pytest.param((2, 197, 768), (394, 768), (0, 2, 1), id="images and tokens in one axis"),
        pytest.param((197, 2, 768), (394, 768), (0, 1, 2), id="tokens and images in one axis"),
    ],
)
def test_known_reshapes_of_attention(before: Shape, after: Shape, expected: tuple[int, int, int]) -> None:
    layout = TokenAxis(axis=before.index(197), tokens=197, prefix=1)

    found = regroup(layout, before, after)

    axis, outer, inner = expected
    assert found == TokenAxis(axis=axis, tokens=197, prefix=1, outer=outer, inner=inner)


def test_windows_are_refused_in_words() -> None:
    grid = PatchGrid(axis=1, rows=8, columns=8)

    reason = regroup(grid, (2, 8, 8, 96), (2, 2, 4, 2, 4, 96))

    assert isinstance(reason, str)
    assert "splits the 64 tokens over several axes (2x8x8x96 to 2x2x4x2x4x96)" in reason
