"""What each operator does to the token axis: one rule per operator family.

A rule gets a node and the layouts of everything before it, at least one of which holds tokens, and returns the
layout of the node's value, or the reason why the tokens do not survive it.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from exporter.anatomy.layout import Layout, PatchGrid, TokenAxis, axes_of, regroup, shifted
from exporter.graph.nodes import axis_of, integer, integers, operand, operands, shape_of
from exporter.graph.operators import Trait, aten, is_pointwise, operators, sdpa

Layouts = Mapping[fx.Node, Layout]
Rule = Callable[[fx.Node, Layouts], Layout | str]


def rule_for(node: fx.Node) -> Rule | None:
    """The rule of a node's operator: its own, or that of every elementwise operator; None where there is none."""
    return RULES.get(node.target) or (_pointwise if is_pointwise(node) else None)


def operator_name(node: fx.Node) -> str:
    """The operator as messages call it."""
    return str(node.target).removeprefix("aten.")


def _convolution(node: fx.Node, layouts: Layouts) -> Layout | str:
    source = layouts[operand(node, 0)]
    if isinstance(source, TokenAxis):
        return "a convolution mixes neighbouring tokens"
    shape = shape_of(node)
    if len(shape) != 4:
        return f"expected a two-dimensional convolution, got a result of {len(shape)} axes"
    return PatchGrid(axis=2, rows=shape[2], columns=shape[3])


def _spatial(node: fx.Node, layouts: Layouts) -> Layout | str:
    """Pooling over the patch grid: another grid; over tokens: not covered."""
    shape = shape_of(node)
    if isinstance(layouts[operand(node, 0)], PatchGrid) and len(shape) == 4:
        return PatchGrid(axis=2, rows=shape[2], columns=shape[3])
    return "it pools over neighbouring tokens"


def _pointwise(node: fx.Node, layouts: Layouts) -> Layout | str:
    """Elementwise with broadcasting: axes align from the right, and all operands with tokens must agree."""
    return _pointwise_layout(node, layouts, len(shape_of(node)))


def _pointwise_layout(node: fx.Node, layouts: Layouts, ndim: int) -> Layout | str:
    aligned = {
        shifted(layout, layout.axis + ndim - len(shape_of(source)))
        for source in node.all_input_nodes
        if isinstance(layout := layouts.get(source), PatchGrid | TokenAxis)
    }
    if len(aligned) != 1:
        return "its operands carry tokens on different axes"
    (layout,) = aligned
    return layout


def _same(node: fx.Node, layouts: Layouts) -> Layout | str:
    return layouts[operand(node, 0)]


def _over_channels(node: fx.Node, layouts: Layouts) -> Layout | str:
    """Normalisation over the last axes."""
    layout = layouts[operand(node, 0)]
    normalized = node.args[1]
    assert isinstance(normalized, list | tuple)
    first = len(shape_of(node)) - len(normalized)
    if any(axis >= first for axis in axes_of(layout)):
        return "it normalises over the token axis"
    return layout


def _along(node: fx.Node, layouts: Layouts) -> Layout | str:
    """Softmax, cumulative sums and the like along one axis."""
    layout = layouts[operand(node, 0)]
    axis = axis_of(integer(node, 1), len(shape_of(node)))
    return f"{operator_name(node)} runs along the token axis" if axis in axes_of(layout) else layout


def _carriers(node: fx.Node, layouts: Layouts) -> int:
    return sum(isinstance(layouts.get(source), TokenAxis) for source in node.all_input_nodes)


def _linear(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout = layouts.get(operand(node, 0))
    if _carriers(node, layouts) != 1 and not isinstance(layout, PatchGrid):
        return "its weight depends on the tokens"
    if len(shape_of(node)) - 1 in axes_of(layout):
        return "it multiplies along the token axis"
    return layout


def _addmm(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout = layouts.get(operand(node, 1))
    if not isinstance(layout, TokenAxis) or layout.axis != 0 or _carriers(node, layouts) != 1:
        return "it multiplies along the token axis"
    return layout


def _matmul(node: fx.Node, layouts: Layouts) -> Layout | str:
    """Products with constants keep the axis; products of tokens with tokens are attention that was not recognised."""
    left, right = operand(node, 0), operand(node, 1)
    left_layout, right_layout = layouts.get(left), layouts.get(right)
    ndim = len(shape_of(node))
    if left_layout is not None and right_layout is not None:
        return "it multiplies tokens with tokens in a form that is not recognised as attention"
    if left_layout is not None:
        axes = axes_of(left_layout)
        return "it sums over the token axis" if len(shape_of(left)) - 1 in axes else left_layout
    shift = ndim - len(shape_of(right))
    if len(shape_of(right)) - 2 in axes_of(right_layout):
        return "it sums over the token axis"
    return shifted(right_layout, axes_of(right_layout)[0] + shift)


def _attention(node: fx.Node, layouts: Layouts) -> Layout | str:
    query, key, value = (operand(node, position) for position in range(3))
    layout_of = {
        role: layouts.get(source) for role, source in (("query", query), ("key", key), ("value", value))
    }
    for role, layout in layout_of.items():
        if layout is not None and not _is_row_axis(layout, len(shape_of(key))):
            return f"its {role} carries the tokens on another axis than (B, H, N, D) has them"
    if (layout_of["key"] is None) != (layout_of["value"] is None):
        return "only one of its key and value carries tokens"
    return layout_of["query"]


def _is_row_axis(layout: Layout, ndim: int) -> bool:
    return isinstance(layout, TokenAxis) and layout.is_plain and layout.axis == ndim - 2


def _reshape(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout = layouts[operand(node, 0)]
    if not isinstance(layout, PatchGrid | TokenAxis):
        return layout
    return regroup(layout, shape_of(operand(node, 0)), shape_of(node))


def _permute(node: fx.Node, layouts: Layouts) -> Layout | str:
    ndim = len(shape_of(node))
    order = [axis_of(axis, ndim) for axis in integers(node.args[1])]
    return _reordered(layouts[operand(node, 0)], order)


def _transpose(node: fx.Node, layouts: Layouts) -> Layout | str:
    ndim = len(shape_of(node))
    first, second = axis_of(integer(node, 1), ndim), axis_of(integer(node, 2), ndim)
    order = list(range(ndim))
    order[first], order[second] = second, first
    return _reordered(layouts[operand(node, 0)], order)


def _matrix_transpose(node: fx.Node, layouts: Layouts) -> Layout | str:
    ndim = len(shape_of(node))
    order = [*range(ndim - 2), ndim - 1, ndim - 2]
    return _reordered(layouts[operand(node, 0)], order)


def _reordered(layout: Layout, order: list[int]) -> Layout | str:
    axes = [order.index(axis) for axis in axes_of(layout)]
    if isinstance(layout, PatchGrid) and axes[1] != axes[0] + 1:
        return "it moves the rows and columns of the patch grid apart"
    return shifted(layout, axes[0])


def _unsqueeze(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout = layouts[operand(node, 0)]
    axis = axis_of(integer(node, 1), len(shape_of(node)))
    return shifted(layout, axes_of(layout)[0] + (axis <= axes_of(layout)[0]))


def _squeeze(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout, ndim = layouts[operand(node, 0)], len(shape_of(operand(node, 0)))
    given = integers(node.args[1]) if len(node.args) > 1 else range(ndim)
    axes = [axis_of(axis, ndim) for axis in given]
    return _without(layout, [axis for axis in axes if shape_of(operand(node, 0))[axis] == 1])


def _without(layout: Layout, gone: list[int]) -> Layout:
    """The layout after axes that hold no tokens disappeared."""
    (first, *_) = axes_of(layout)
    return shifted(layout, first - sum(axis < first for axis in gone))


def _reduce(node: fx.Node, layouts: Layouts) -> Layout | str:
    """Mean, sum, maximum over some axes. Over the tokens: the result holds none, see `pooling`."""
    layout, ndim = layouts[operand(node, 0)], len(shape_of(operand(node, 0)))
    axes = reduced_axes(node)
    if set(axes) & set(axes_of(layout)):
        folded = isinstance(layout, TokenAxis) and not layout.is_plain
        return "it reduces an axis that holds more than tokens" if folded else None
    keeps_axes = len(shape_of(node)) == ndim
    return layout if keeps_axes else _without(layout, list(axes))


def reduced_axes(node: fx.Node) -> tuple[int, ...]:
    """The axes that a reduction runs over, counted from the front."""
    ndim = len(shape_of(operand(node, 0)))
    position = 2 if node.target is aten.linalg_vector_norm.default else 1
    given = node.args[position] if len(node.args) > position else node.kwargs.get("dim")
    if given is None:
        return tuple(range(ndim))
    return tuple(axis_of(axis, ndim) for axis in integers(given))


def _select(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout, shape = layouts[operand(node, 0)], shape_of(operand(node, 0))
    axis = axis_of(integer(node, 1), len(shape))
    if axis not in axes_of(layout):
        return _without(layout, [axis])
    index = integer(node, 2) % shape[axis]
    if isinstance(layout, TokenAxis) and layout.is_plain and index < layout.prefix:
        return None
    return "it picks out one patch by its position"


def _slice(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout, shape = layouts[operand(node, 0)], shape_of(operand(node, 0))
    axis, start, end, step = slice_bounds(node)
    if axis not in axes_of(layout):
        return layout
    if not isinstance(layout, TokenAxis) or not layout.is_plain or step != 1:
        return "it picks out patches by their position"
    if end <= layout.prefix:
        return None
    if end < shape[axis] or start > layout.prefix:
        return "it picks out patches by their position"
    return TokenAxis(axis=axis, tokens=layout.tokens - start, prefix=layout.prefix - start)


def slice_bounds(node: fx.Node) -> tuple[int, int, int, int]:
    """Axis, start, end and step of an `aten.slice`, resolved against the traced shape."""
    shape = shape_of(operand(node, 0))
    given: list[Any] = [*node.args[1:], *[None] * 4][:4]
    axis = axis_of(given[0] or 0, len(shape))
    step = given[3] or 1
    start, end, step = slice(given[1], given[2], step).indices(shape[axis])
    return axis, start, end, step


def _concatenate(node: fx.Node, layouts: Layouts) -> Layout | str:
    """Along channels all parts agree; along tokens, parts before the patches become prefix tokens."""
    parts = operands(node)
    axis = axis_of(integer(node, 1), len(shape_of(node)))
    found = [layouts.get(part) for part in parts]
    carriers = {layout for layout in found if layout is not None}
    if len(carriers) != 1:
        return "its parts carry tokens on different axes"
    (layout,) = carriers
    if axis not in axes_of(layout):
        return (
            layout
            if len(found) == sum(part is not None for part in found)
            else "only some of its parts have tokens"
        )
    if (
        not isinstance(layout, TokenAxis)
        or not layout.is_plain
        or found.count(layout) != 1
        or found[-1] is None
    ):
        return "it puts something else than prefix tokens beside the patches"
    added = sum(shape_of(part)[axis] for part in parts[:-1])
    return TokenAxis(axis=axis, tokens=layout.tokens + added, prefix=layout.prefix + added)


def _expand(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout = layouts[operand(node, 0)]
    return shifted(layout, axes_of(layout)[0] + len(shape_of(node)) - len(shape_of(operand(node, 0))))


def _unbind(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout = layouts[operand(node, 0)]
    axis = axis_of(integer(node, 1), len(shape_of(operand(node, 0))))
    return "it takes the tokens apart" if axis in axes_of(layout) else _without(layout, [axis])


def _split(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout = layouts[operand(node, 0)]
    axis = axis_of(integer(node, 2), len(shape_of(operand(node, 0))))
    return "it takes the tokens apart" if axis in axes_of(layout) else layout


def _stack(node: fx.Node, layouts: Layouts) -> Layout | str:
    agreed = _pointwise_layout(node, layouts, len(shape_of(node)) - 1)
    if isinstance(agreed, str):
        return agreed
    axis = axis_of(integer(node, 1), len(shape_of(node)))
    return shifted(agreed, axes_of(agreed)[0] + (axis <= axes_of(agreed)[0]))


def _pad(node: fx.Node, layouts: Layouts) -> Layout | str:
    layout = layouts[operand(node, 0)]
    widths = node.args[1]
    assert isinstance(widths, list | tuple)
    padded = {len(shape_of(node)) - 1 - position // 2 for position, width in enumerate(widths) if width != 0}
    return "it pads the patches, as windowed models do" if padded & set(axes_of(layout)) else layout


def _roll(node: fx.Node, layouts: Layouts) -> Layout | str:
    return "it shifts the patches, as windowed models do"


RULES: dict[Any, Rule] = {
    **dict.fromkeys(operators(Trait.CONVOLUTION), _convolution),
    **dict.fromkeys(operators(Trait.COPY | Trait.DROPOUT | Trait.CAST), _same),
    **dict.fromkeys(operators(Trait.RESHAPE), _reshape),
    **dict.fromkeys(operators(Trait.REDUCTION), _reduce),
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
    aten.t.default: _matrix_transpose,
    aten.mT.default: _matrix_transpose,
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
    aten.split_with_sizes.default: _split,
    operator.getitem: _same,
}
