"""TensorRT: data types. Its networks are strongly typed: what the graph says is what runs, and nothing is converted.

Version 11 has no other mode; on 10.x it is asked for.
"""

from collections.abc import Callable, Iterator

from exporter.lint.graph_facts import GraphFacts, Node, attribute, operand, short_name
from exporter.lint.report import Source
from exporter.lint.rule import Check, Rule, Verdict, Wrong, card, of_nodes
from exporter.lint.trt_operators import MATRIX, SUPPORTED

_ELEMENTWISE = Source(
    title="TensorRT operators, ElementWise: both inputs are of type T1",
    address="https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/ElementWise.html",
)

VALUES = frozenset({"fp32", "fp16", "bf16", "int32", "int64", "bool"})
_QUANTIZED = frozenset({"int8", "int4", "fp8", "fp4"})
_KNOWN = VALUES | _QUANTIZED | {"uint8", "fp64"}

ALIKE = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu"), slice(0, 2)),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), slice(0, 2)),
    **dict.fromkeys(("Max", "Min", "Sum", "Mean", "Concat", "Einsum"), slice(0, None)),
    **dict.fromkeys(("MatMul", "RMSNormalization"), slice(0, 2)),
    **dict.fromkeys(("Gemm", "Conv", "ConvTranspose", "LayerNormalization", "Clip", "Range"), slice(0, 3)),
    **dict.fromkeys(("Attention",), slice(0, 3)),
    **dict.fromkeys(("Where",), slice(1, 3)),
}
"""Which inputs must be of one type."""

_RESULT_DECIDES = ("Constant", "ConstantOfShape", "RandomNormal", "RandomUniform", "EyeLike")
ANY_TYPE = ("If", "Loop", "Scan", "Shape", "Size", "TopK")
"""Inner graphs are judged node by node; the shape of anything can be asked for; TopK has a rule of its own."""


def mixed(facts: GraphFacts, node: Node) -> Verdict:
    """The types of operands that have to be of one; empty where they are."""
    found = [facts.types.get(name, "") for name in node.input[ALIKE[node.op_type]] if name]
    is_mixed = len({kind for kind in found if kind}) > 1
    return " and ".join(kind or "an unknown type" for kind in found) if is_mixed else ""


def deciding_type(facts: GraphFacts, node: Node) -> str:
    """The type that decides whether an operator's layer takes it; empty if it is not known."""
    return facts.types.get(node.output[0] if node.op_type in _RESULT_DECIDES else operand(node, 0), "")


def _operator_types(facts: GraphFacts, node: Node) -> Verdict:
    kind, taken = deciding_type(facts, node), SUPPORTED[node.op_type]
    return Wrong(got=kind, expected=", ".join(taken)) if kind in VALUES and kind not in taken else ""


def _uint8(facts: GraphFacts, node: Node) -> Verdict:
    if node.op_type in ("Cast", "CastLike", "Constant"):
        return ""
    touched = (facts.types.get(name) for name in (*node.input, *node.output))
    return "uint8 inside the graph" if "uint8" in touched else ""


def _quantized(facts: GraphFacts, node: Node) -> Verdict:
    if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant"):
        return ""
    kinds = {facts.types.get(name, "") for name in (*node.input, *node.output)}
    made = {short_name(attribute(node, "to", 0))} if node.op_type == "Cast" else set()
    return " and ".join(sorted((kinds & _QUANTIZED) or (made & _QUANTIZED)))


def _first_of_each(is_wrong: Callable[[str], bool]) -> Check:
    """Inputs, and nodes that bring in a type that their inputs do not have: the rest follows from these."""

    def check(facts: GraphFacts) -> Iterator[tuple[Node | str, str]]:
        for name in facts.inputs:
            if (kind := facts.types.get(name, "")) and is_wrong(kind):
                yield name, kind
        for node in facts.nodes:
            given = {facts.types.get(name, "") for name in node.input if name not in facts.weights}
            own = (*node.output, *(name for name in node.input if name in facts.weights))
            for kind in dict.fromkeys(facts.types.get(name, "") for name in own):
                if kind and is_wrong(kind) and kind not in given:
                    yield node, kind

    return check


RULES = (
    Rule(
        card=card(
            "trt-mixed-types", "error", "Strongly typed networks convert nothing by themselves.", _ELEMENTWISE
        ),
        check=of_nodes(mixed, *ALIKE),
        expected="operands of one type",
        fix="cast one of them in the graph",
    ),
    Rule(
        card=card("trt-operator-type", "error", "An operator's layer takes certain types.", MATRIX),
        check=of_nodes(_operator_types, *(name for name in SUPPORTED if name not in ANY_TYPE)),
        fix="cast around it, or spell it in other operators",
    ),
    Rule(
        card=card("trt-data-type", "error", "TensorRT has no such type.", MATRIX),
        check=_first_of_each(lambda kind: kind not in _KNOWN),
        expected="a type that TensorRT has",
        fix="cast at the model's input, or keep it out of the graph",
    ),
    Rule(
        card=card("trt-uint8", "error", "uint8 is a type of inputs and outputs.", MATRIX),
        check=of_nodes(_uint8),
        expected="uint8 at inputs and outputs only, next to a Cast",
        fix="cast the input first; quantise to int8",
    ),
    Rule(
        card=card("trt-quantized-type", "error", "Narrow types come from quantisation only.", MATRIX),
        check=of_nodes(_quantized),
        expected="quantised values between QuantizeLinear and DequantizeLinear only",
        fix="dequantise before it",
    ),
    Rule(
        card=card("trt-double", "warning", "fp64 is cast down to fp32, and clamped to its range.", MATRIX),
        check=_first_of_each(lambda kind: kind == "fp64"),
        expected="fp32 at most",
        fix="export the model in fp32",
    ),
)
