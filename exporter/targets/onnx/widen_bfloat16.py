"""Make a model in bfloat16 computable where there is no bfloat16 arithmetic, with the same roundings.

ONNX Runtime's CPU provider has next to no kernels for bfloat16. It has none for fp16 either, but there it puts casts
around every operator by itself; this is the same for bfloat16.
"""

import onnx_ir as ir
from onnx_ir.passes import common

from exporter.errors import InternalError

_WIDE, _NARROW = ir.DataType.FLOAT, ir.DataType.BFLOAT16

EXACT = frozenset({
    "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Max", "Min", "Neg", "ReduceMax",
    "ReduceMin", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""Operators whose results are among the values that they are given, up to the sign, and need no rounding."""


def holds_bfloat16(model: ir.Model) -> bool:
    """Whether any weight or value is in bfloat16."""
    values = [output for node in model.graph.all_nodes() for output in node.outputs]
    return any(value.dtype == _NARROW for value in (*model.graph.initializers.values(), *values))


def widen_bfloat16(model: ir.Model) -> None:
    """Compute in fp32 and round to bfloat16 after every operator that rounds, in place.

    Given: a model with inputs and outputs of other types.
    Result: every value that was bfloat16 is fp32 and has a bfloat16 number in every place. An operator's own sums are
    in fp32, as they are in the bfloat16 kernels of PyTorch and of GPUs.

    Raises:
        InternalError: an input or output is in bfloat16.
    """
    if any(value.dtype == _NARROW for value in (*model.graph.inputs, *model.graph.outputs)):
        raise InternalError("a model in bfloat16 takes or gives bfloat16, expected fp32")
    if any(
        output.dtype is None for node in model.graph.all_nodes() for output in node.outputs if output.name
    ):
        common.ShapeInferencePass()(model)
    for value in list(model.graph.initializers.values()):
        if value.dtype == _NARROW and value.const_value is not None:
            value.const_value, value.type = _wide(value.const_value), ir.TensorType(_WIDE)
    for node in list(model.graph.all_nodes()):
        _widen_attributes(node)
        for value in node.outputs:
            if value.dtype == _NARROW:
                value.type = ir.TensorType(_WIDE)  # a new one: copies of a model share theirs
                if node.op_type not in EXACT:
                    _round(value, node)


def _widen_attributes(node: ir.Node) -> None:
    """What a node makes values of, or casts them to, is fp32 as well."""
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _NARROW:
            node.attributes[name] = ir.AttrTensor(name, _wide(attribute.as_tensor()))
        elif node.op_type == "Cast" and name == "to" and attribute.as_int() == _NARROW:
            node.attributes[name] = ir.AttrInt64(name, int(_WIDE))


def _wide(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype("float32"), name=tensor.name)


def _round(value: ir.Value, producer: ir.Node) -> None:
    """Put bfloat16 and back after a value, for all its uses."""
    users = list(value.uses())
    narrowed = ir.node("Cast", [value], {"to": int(_NARROW)}, name=f"{producer.name}/narrow_{value.name}")
    widened = ir.node(
        "Cast", narrowed.outputs, {"to": int(_WIDE)}, name=f"{producer.name}/widen_{value.name}"
    )
    narrowed.outputs[0].name, narrowed.outputs[0].dtype = f"{value.name}_narrow", _NARROW
    widened.outputs[0].name, widened.outputs[0].dtype = f"{value.name}_rounded", _WIDE
    for made in (narrowed, widened):
        made.outputs[0].shape = value.shape
    graph = producer.graph
    assert graph is not None
    graph.insert_after(producer, [narrowed, widened])
    for user, place in users:
        user.replace_input_with(place, widened.outputs[0])
