"""ONNX pass: attention operators read the rows of channels that the projection before them made.

`lowering.attention_operator` asks for (B, N, H * D), and the model's own code has made (B, H, N, D) of that: what lies
between undoes itself.
"""

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

_SWAPPED = [0, 2, 1, 3]
_HEADS_OF_THREE = [2, 0, 3, 1, 4]


class FlattenHeadsPass(ir.passes.InPlacePass):
    """Cancel the movements between projection and attention.

    Given: `Reshape(Transpose(heads))` as (B, N, C), where heads (B, H, N, D) is `Transpose(Reshape(rows))` or one of
    the three parts of `Transpose(Reshape(rows of three))`.
    Result: rows, or a slice of rows of three. A mean over heads, which is the metric of the merge, reads the same.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Walk the graph once."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "Reshape":
                replacement = _flattened(node)
            elif node.op_type == "ReduceMean":
                replacement = _mean_over_heads(node)
            else:
                continue
            if replacement is not None:
                node.outputs[0].replace_all_uses_with(replacement)
                modified = True
        common.RemoveUnusedNodesPass()(model)
        common.CommonSubexpressionEliminationPass()(model)
        return ir.passes.PassResult(model, modified)


def _flattened(reshape: ir.Node) -> ir.Value | None:
    """The rows of channels that a reshape puts together again."""
    swap = _producer(reshape.inputs[0], "Transpose", _SWAPPED)
    rows = _rows(swap.inputs[0]) if swap is not None else None
    return rows if rows is not None and rows.shape == reshape.outputs[0].shape else None


def _rows(heads: ir.Value | None) -> ir.Value | None:
    """(B, N, H * D) that (B, H, N, D) was made of."""
    swap = _producer(heads, "Transpose", _SWAPPED)
    if swap is not None:
        split = _producer(swap.inputs[0], "Reshape")
        return split.inputs[0] if split is not None and _rank(split.inputs[0]) == 3 else None
    return _part_of_three(heads)


def _part_of_three(heads: ir.Value | None) -> ir.Value | None:
    picked = _producer(heads, "Gather")
    turned = _producer(picked.inputs[0], "Transpose", _HEADS_OF_THREE) if picked is not None else None
    split = _producer(turned.inputs[0], "Reshape") if turned is not None else None
    if picked is None or split is None or picked.attributes.get_int("axis", 0) != 0:
        return None
    rows, index = split.inputs[0], _integers(picked.inputs[1])
    if rows is None or rows.shape is None or _rank(rows) != 3 or index is None:
        return None
    width = rows.shape[2]
    assert isinstance(width, int)
    bounds = [[index[0] * width // 3], [(index[0] + 1) * width // 3], [2]]
    return _after(
        split, "Slice", [rows, *(_constant(split, each) for each in bounds)], [*rows.shape[:2], width // 3]
    )


def _mean_over_heads(mean: ir.Node) -> ir.Value | None:
    """The mean of (B, N, H, D) over heads instead of that of (B, H, N, D)."""
    heads, axes = mean.inputs[0], _integers(mean.inputs[1]) if len(mean.inputs) > 1 else None
    rows = _rows(heads)
    if rows is None or axes != [1] or mean.attributes.get_int("keepdims", 1) != 0 or heads is None:
        return None
    _, count, _, width = heads.shape or (None,) * 4
    assert isinstance(count, int) and isinstance(width, int) and rows.shape is not None
    shape = [*rows.shape[:2], count, width]
    split = _after(mean, "Reshape", [rows, _constant(mean, [0, 0, count, width])], shape)
    made = split.producer()
    assert made is not None
    return _after(made, "ReduceMean", [split, _constant(mean, [2])], [*rows.shape[:2], width], keepdims=0)


def _producer(value: ir.Value | None, op_type: str, perm: Sequence[int] | None = None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != op_type:
        return None
    return node if perm is None or list(node.attributes.get_ints("perm", [])) == list(perm) else None


def _integers(value: ir.Value | None) -> list[int] | None:
    if value is None or value.const_value is None:
        return None
    return [int(each) for each in value.const_value.numpy().reshape(-1)]


def _rank(value: ir.Value | None) -> int:
    return len(value.shape) if value is not None and value.shape is not None else -1


def _constant(beside: ir.Node, integers: Sequence[int]) -> ir.Value:
    graph = beside.graph
    assert graph is not None
    name = "integers_" + "_".join(map(str, integers))
    if name not in graph.initializers:
        value = ir.Value(name=name, const_value=ir.tensor(list(integers), name=name))
        graph.register_initializer(value)
    return graph.initializers[name]


def _after(
    node: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value],
    shape: Sequence[int | ir.SymbolicDim],
    **attributes: int,
) -> ir.Value:
    made = ir.node(op_type, inputs, attributes=attributes)
    made.metadata_props.update(node.metadata_props)
    made.outputs[0].shape = ir.Shape(shape)
    made.outputs[0].type = inputs[0].type
    assert node.graph is not None
    node.graph.insert_after(node, made)
    return made.outputs[0]
