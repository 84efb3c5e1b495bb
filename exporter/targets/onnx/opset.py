"""The opset and IR version that a user asks for, for servers that read no newer ones.

In: a model in the opset that the exporter of torch wrote. Out: the same operators in the opset asked for, with the
smallest IR version that belongs to it; or a refusal that names what that opset has no words for.
"""

import onnx_ir as ir
from onnx import defs, helper

from exporter.errors import InternalError, UsageError
from exporter.lint.ort_rules import OPSETS
from exporter.targets.onnx.lowering import BFLOAT16_OPSET, attention_form
from exporter.targets.target import EmitRequest

OLDEST = 17
"""The first one with layer normalisation."""

_TRANSLATED = range(18, 26)
"""What the exporter of torch writes, with onnxscript's converter; those before and after are made from its nearest."""

_MAIN = ("", "ai.onnx")


def newest() -> int:
    """The newest opset that both onnx and ONNX Runtime know here."""
    return min(defs.onnx_opset_version(), OPSETS[-1])


def check_opset(request: EmitRequest, opset: int) -> None:
    """Refuse an opset before anything is built.

    Raises:
        UsageError: it is out of range, or older than what the precision or the form of attention needs.
    """
    if not OLDEST <= opset <= newest():
        raise UsageError(f"onnx.opset: expected {OLDEST} to {newest()}, got {opset}")
    if request.precision == "bf16" and opset < BFLOAT16_OPSET:
        raise UsageError(
            f"onnx.opset: bf16 needs {BFLOAT16_OPSET}, whose convolution is the first to take it, got {opset}; "
            f"ask for {BFLOAT16_OPSET}, or for fp16"
        )
    needed = attention_form(request.forms).opset
    if opset < needed:
        raise UsageError(
            f"onnx.opset: lowering attention={request.forms.attention} needs {needed}, the first one with an Attention "
            f"operator, got {opset}; ask for {needed}, or for attention=decomposed"
        )


def translated_opset(opset: int) -> int:
    """The opset to have the exporter of torch write, for a model that is to be in `opset`."""
    return min(max(opset, _TRANSLATED[0]), _TRANSLATED[-1])


def convert(model: ir.Model, opset: int) -> None:
    """Bring a model from the translated opset to the one asked for, in place, and give it the IR version.

    Raises:
        UsageError: an operator of the model does not exist in that opset, or means something else there.
    """
    written = model.opset_imports[""]
    nodes = [node for node in model.graph.all_nodes() if node.domain in _MAIN]
    if opset < written:
        for node in nodes:
            _axes_as_attribute(node)
    for node in nodes:
        _check_means_the_same(node, written, opset)
    model.opset_imports[""] = opset
    model.ir_version = ir_version(opset)


def ir_version(opset: int) -> int:
    """The IR version of the onnx release that brought an opset of the default domain."""
    return min(int(row[1]) for row in helper.VERSION_TABLE if row[2] == opset)


def _axes_as_attribute(node: ir.Node) -> None:
    """Reductions take their axes as an attribute before opset 18 (ReduceSum before 13)."""
    if not node.op_type.startswith("Reduce") or node.op_type == "ReduceSum":
        return
    axes = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if axes is None:
        raise InternalError(f"{node.name}: the axes of a reduction are no constant")
    node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes.numpy().reshape(-1)])
    node.attributes.pop("noop_with_empty_axes", None)
    node.resize_inputs(1)


def _check_means_the_same(node: ir.Node, written: int, opset: int) -> None:
    """Between two neighbouring opsets an operator either has one definition, or is spelled as in the older one."""
    try:
        schema = defs.get_schema(node.op_type, opset)
    except defs.SchemaError:
        raise _refusal(node, opset, f"has no {node.op_type}") from None
    if opset > written and schema.since_version != defs.get_schema(node.op_type, written).since_version:
        raise _refusal(node, opset, f"redefines {node.op_type}")
    unknown = [name for name in node.attributes if name not in schema.attributes]
    if unknown or len(node.inputs) > schema.max_input:
        raise _refusal(
            node, opset, f"has no {node.op_type} with {unknown[0] if unknown else 'this number of inputs'}"
        )


def _refusal(node: ir.Node, opset: int, why: str) -> UsageError:
    nearest = translated_opset(opset)
    return UsageError(f"onnx.opset: {opset} {why} ({node.name}); ask for {nearest}, or leave it out")
