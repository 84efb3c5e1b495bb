"""What each operator does to the token axis: one rule per operator family.

At least one operand of the node holds tokens. A rule returns the layout of the node's value, or the reason why the
tokens do not survive it.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import fx

from exporter.anatomy.layout import Layout, PatchGrid, TokenAxis, axes_of, regroup, shifted
from exporter.graph.ids import protected_tokens
from exporter.graph.nodes import axis_of, integer, integers, operand, operands, optional_operand, shape_of
from exporter.graph.operators import Trait, aten, is_pointwise, operators, sdpa

Layouts = Mapping[fx.Node, Layout]
Rule = Callable[[fx.Node, Layout, Layouts], Layout | str]
"""Gets a node, the layout of its first operand, and all layouts so far."""


def apply_rule(node: fx.Node, layouts: Layouts) -> Layout | str:
    """What the rule of a node's operator says of its value: its own rule, or that of every elementwise operator."""
    rule = RULES.get(node.target) or (_pointwise if is_pointwise(node) else None)
    if rule is None:
        return f"no rule says what {_operator_name(node)} does to the token axis"
    source = optional_operand(node, 0)
    return rule(node, None if source is None else layouts.get(source), layouts)


def _operator_name(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.")


def _axis(node: fx.Node, position: int) -> int:
    """The axis that an argument names, of the node's first operand."""
    return axis_of(integer(node, position), len(shape_of(operand(node, 0))))


def _kept(layout: Layout, axes: Iterable[int], reason: str) -> Layout | str:
    """The same layout, or the reason where one of these axes holds tokens."""
    return reason if set(axes) & set(axes_of(layout)) else layout


def _without(layout: Layout, gone: Sequence[int]) -> Layout:
    """The layout after axes that hold no tokens disappeared."""
    (first, *_) = axes_of(layout)
    return shifted(layout, first - sum(axis < first for axis in gone))


def _with(layout: Layout, axis: int) -> Layout:
    """The layout after an axis was inserted."""
    (first, *_) = axes_of(layout)
    return shifted(layout, first + (axis <= first))


def _convolution(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    if isinstance(layout, TokenAxis):
        return "a convolution mixes neighbouring tokens"
    shape = shape_of(node)
    if len(shape) != 4:
        return f"expected a two-dimensional convolution, got a result of {len(shape)} axes"
    return PatchGrid(axis=2, rows=shape[2], columns=shape[3])


def _embedding(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    """Tokens are looked up by their ids; the first ones of a text never merge."""
    shape = shape_of(node)
    if layouts.get(operand(node, 1)) is not None:
        return "it looks up rows by what tokens hold"
    if len(shape) != 3:
        return f"expected ids (B, N), got a result of {len(shape)} axes"
    return TokenAxis(axis=1, tokens=shape[1], prefix=protected_tokens(node.graph))


def _spatial(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    """Pooling over the patch grid: another grid; over tokens: not covered."""
    shape = shape_of(node)
    if isinstance(layout, PatchGrid) and len(shape) == 4:
        return PatchGrid(axis=2, rows=shape[2], columns=shape[3])
    return "it pools over neighbouring tokens"


def _pointwise(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    """Elementwise with broadcasting: axes align from the right, and all operands with tokens must agree."""
    return _aligned(node, layouts, len(shape_of(node)))


def _aligned(node: fx.Node, layouts: Layouts, ndim: int) -> Layout | str:
    aligned = {
        shifted(layout, layout.axis + ndim - len(shape_of(source)))
        for source in node.all_input_nodes
        if isinstance(layout := layouts.get(source), PatchGrid | TokenAxis)
    }
    return aligned.pop() if len(aligned) == 1 else "its operands carry tokens on different axes"


def _stack(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    ndim = len(shape_of(node))
    agreed = _aligned(node, layouts, ndim - 1)
    return agreed if isinstance(agreed, str) else _with(agreed, axis_of(integer(node, 1), ndim))


def _same(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    return layout


def _over_channels(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    """Normalisation over the last axes."""
    ndim = len(shape_of(node))
    normalized = range(ndim - len(integers(node.args[1])), ndim)
    return _kept(layout, normalized, "it normalises over the token axis")


def _along(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    """Softmax, cumulative sums and the like along one axis."""
    return _kept(layout, [_axis(node, 1)], f"{_operator_name(node)} runs along the token axis")


def _carriers(node: fx.Node, layouts: Layouts) -> int:
    return sum(isinstance(layouts.get(source), TokenAxis) for source in node.all_input_nodes)


def _linear(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    if _carriers(node, layouts) != 1 and not isinstance(layout, PatchGrid):
        return "its weight depends on the tokens"
    return _kept(layout, [len(shape_of(node)) - 1], "it multiplies along the token axis")


def _addmm(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    rows = layouts.get(operand(node, 1))
    if not isinstance(rows, TokenAxis) or rows.axis != 0 or _carriers(node, layouts) != 1:
        return "it multiplies along the token axis"
    return rows


def _matmul(node: fx.Node, left: Layout, layouts: Layouts) -> Layout | str:
    """Products with constants keep the axis; products of tokens with tokens are attention that was not recognised."""
    right = layouts.get(operand(node, 1))
    left_ndim, right_ndim = (len(shape_of(operand(node, position))) for position in (0, 1))
    if left is not None and right is not None:
        return "it multiplies tokens with tokens in a form that is not recognised as attention"
    if left is not None:
        return _kept(left, [left_ndim - 1], "it sums over the token axis")
    if right_ndim - 2 in axes_of(right):
        return "it sums over the token axis"
    return shifted(right, axes_of(right)[0] + len(shape_of(node)) - right_ndim)


def _attention(node: fx.Node, query: Layout, layouts: Layouts) -> Layout | str:
    key, value = (layouts.get(operand(node, position)) for position in (1, 2))
    rows = len(shape_of(operand(node, 1))) - 2
    for role, layout in (("query", query), ("key", key), ("value", value)):
        is_row_axis = isinstance(layout, TokenAxis) and layout.is_plain and layout.axis == rows
        if layout is not None and not is_row_axis:
            return f"its {role} carries the tokens on another axis than (B, H, N, D) has them"
    if (key is None) != (value is None):
        return "only one of its key and value carries tokens"
    return query


def _reshape(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    if not isinstance(layout, PatchGrid | TokenAxis):
        return layout
    return regroup(layout, shape_of(operand(node, 0)), shape_of(node))


def _permute(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    ndim = len(shape_of(node))
    return _reordered(layout, [axis_of(axis, ndim) for axis in integers(node.args[1])])


def _transpose(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    """Swaps two axes, the last ones where none are named."""
    ndim = len(shape_of(node))
    first, second = (_axis(node, 1), _axis(node, 2)) if len(node.args) > 1 else (ndim - 2, ndim - 1)
    order = list(range(ndim))
    order[first], order[second] = second, first
    return _reordered(layout, order)


def _reordered(layout: Layout, order: list[int]) -> Layout | str:
    axes = [order.index(axis) for axis in axes_of(layout)]
    if isinstance(layout, PatchGrid) and axes[1] != axes[0] + 1:
        return "it moves the rows and columns of the patch grid apart"
    return shifted(layout, axes[0])


def _unsqueeze(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    return _with(layout, axis_of(integer(node, 1), len(shape_of(node))))


def _squeeze(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    shape = shape_of(operand(node, 0))
    given = integers(node.args[1]) if len(node.args) > 1 else range(len(shape))
    axes = [axis_of(axis, len(shape)) for axis in given]
    return _without(layout, [axis for axis in axes if shape[axis] == 1])


def _reduce(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    """Mean, sum, maximum over some axes. Over the tokens: the result holds none, see `pooling`."""
    axes = reduced_axes(node)
    if set(axes) & set(axes_of(layout)):
        folded = isinstance(layout, TokenAxis) and not layout.is_plain
        return "it reduces an axis that holds more than tokens" if folded else None
    keeps_axes = len(shape_of(node)) == len(shape_of(operand(node, 0)))
    return layout if keeps_axes else _without(layout, axes)


def reduced_axes(node: fx.Node) -> tuple[int, ...]:
    """The axes that a reduction runs over, counted from the front."""
    ndim = len(shape_of(operand(node, 0)))
    position = 2 if node.target is aten.linalg_vector_norm.default else 1
    given = node.args[position] if len(node.args) > position else node.kwargs.get("dim")
    if given is None:
        return tuple(range(ndim))
    return tuple(axis_of(axis, ndim) for axis in integers(given))


def _select(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    axis = _axis(node, 1)
    if axis not in axes_of(layout):
        return _without(layout, [axis])
    index = integer(node, 2) % shape_of(operand(node, 0))[axis]
    if isinstance(layout, TokenAxis) and layout.is_plain and index < layout.prefix:
        return None
    return "it picks out one patch by its position"


def _slice(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    axis, start, end, step = slice_bounds(node)
    if axis not in axes_of(layout):
        return layout
    return _rows(layout, start, end) if step == 1 else _BY_POSITION


_BY_POSITION = "it picks out patches by their position"


def _rows(layout: Layout, start: int, end: int) -> Layout | str:
    """Some consecutive tokens: of the prefix only, or all from somewhere in the prefix on."""
    if not isinstance(layout, TokenAxis) or not layout.is_plain:
        return _BY_POSITION
    if end <= layout.prefix:
        return None
    if end < layout.tokens or start > layout.prefix:
        return _BY_POSITION
    return TokenAxis(axis=layout.axis, tokens=layout.tokens - start, prefix=layout.prefix - start)


def slice_bounds(node: fx.Node) -> tuple[int, int, int, int]:
    """Axis, start, end and step of an `aten.slice`, resolved against the traced shape."""
    shape = shape_of(operand(node, 0))
    given: list[Any] = [*node.args[1:], *[None] * 4][:4]
    axis = axis_of(given[0] or 0, len(shape))
    step = given[3] or 1
    start, end, step = slice(given[1], given[2], step).indices(shape[axis])
    return axis, start, end, step


def _concatenate(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    """Along channels all parts agree; along tokens, parts before the patches become prefix tokens."""
    parts = operands(node)
    axis = axis_of(integer(node, 1), len(shape_of(node)))
    found = [layouts.get(part) for part in parts]
    carriers = set(found) - {None}
    if len(carriers) != 1:
        return "its parts carry tokens on different axes"
    (common,) = carriers
    if axis not in axes_of(common):
        return "only some of its parts have tokens" if None in found else common
    last_alone = found.count(common) == 1 and found[-1] is not None
    if not isinstance(common, TokenAxis) or not common.is_plain or not last_alone:
        return "it puts something else than prefix tokens beside the patches"
    added = sum(shape_of(part)[axis] for part in parts[:-1])
    return TokenAxis(axis=axis, tokens=common.tokens + added, prefix=common.prefix + added)


def _expand(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    return shifted(layout, axes_of(layout)[0] + len(shape_of(node)) - len(shape_of(operand(node, 0))))


def _unbind(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    axis = _axis(node, 1)
    return "it takes the tokens apart" if axis in axes_of(layout) else _without(layout, [axis])


def _split(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    return _kept(layout, [_axis(node, 2)], "it takes the tokens apart")


def _part(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    """One of the values of a node that has several."""
    bounds = token_part(node, layout)
    return layout if bounds is None else _rows(layout, *bounds)


def token_part(node: fx.Node, layout: Layout) -> tuple[int, int] | None:
    """Start and end of the tokens that one part of a split holds; None where it is no part of the tokens.

    Args:
        node: that takes one of the values of another node.
        layout: of the other node.
    """
    split, index = operand(node, 0), integer(node, 1)
    if split.target is not aten.split_with_sizes.default or _axis(split, 2) not in axes_of(layout):
        return None
    sizes = integers(split.args[1])
    return sum(sizes[:index]), sum(sizes[: index + 1])


def _pad(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    last = len(shape_of(node)) - 1
    padded = [last - position // 2 for position, width in enumerate(integers(node.args[1])) if width != 0]
    return _kept(layout, padded, "it pads the patches, as windowed models do")


def _roll(node: fx.Node, layout: Layout, layouts: Layouts) -> Layout | str:
    return "it shifts the patches, as windowed models do"


RULES: dict[Any, Rule] = {
    **dict.fromkeys(operators(Trait.CONVOLUTION), _convolution),
    **dict.fromkeys(operators(Trait.COPY | Trait.DROPOUT | Trait.CAST), _same),
    **dict.fromkeys(operators(Trait.RESHAPE), _reshape),
    **dict.fromkeys(operators(Trait.REDUCTION), _reduce),
    aten.embedding.default: _embedding,
    aten.batch_norm.default: _same,
    aten._native_batch_norm_legit_no_training.default: _same,
    aten.max_pool2d.default: _spatial,
    aten.avg_pool2d.default: _spatial,
    aten.adaptive_avg_pool2d.default: _spatial,
    aten.layer_norm.default: _over_channels,
    aten.rms_norm.default: _over_channels,
    aten.softmax.int: _along,
    aten.log_softmax.int: _along,
    aten.linear.default: _linear,
    aten.addmm.default: _addmm,
    aten.matmul.default: _matmul,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    sdpa: _attention,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.t.default: _transpose,
    aten.mT.default: _transpose,
    aten.unsqueeze.default: _unsqueeze,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    aten.squeeze.default: _squeeze,
    aten.select.int: _select,
    aten.slice.Tensor: _slice,
    aten.cat.default: _concatenate,
    aten.expand.default: _expand,
    aten.expand_as.default: _pointwise,
    aten.stack.default: _stack,
    aten.pad.default: _pad,
    aten.roll.default: _roll,
    aten.unbind.int: _unbind,
    aten.chunk.default: _split,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _same,
    operator.getitem: _part,
}
