"""TensorRT: data types. Its networks are strongly typed: what the graph says is what runs, and nothing is converted.

Version 11 has no other mode; on 10.x it is asked for.
"""

from collections.abc import Callable, Iterator

from exporter.lint.graph_facts import GraphFacts, Node, attribute, operand, short_name
from exporter.lint.report import RuleCard, Severity, Source
from exporter.lint.rule import Breach, Rule
from exporter.lint.trt_operators import MATRIX, SUPPORTED

_ELEMENTWISE = Source(
    title="TensorRT operators, ElementWise: both inputs are of type T1",
    address="https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/ElementWise.html",
)

_VALUES = frozenset({"fp32", "fp16", "bf16", "int32", "int64", "bool"})
_QUANTIZED = frozenset({"int8", "int4", "fp8", "fp4"})
_KNOWN = _VALUES | _QUANTIZED | {"uint8", "fp64"}

_ALIKE = {
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
_ANY_TYPE = ("If", "Loop", "Scan", "Shape", "Size", "TopK")
"""Inner graphs are judged node by node; the shape of anything can be asked for; TopK has a rule of its own."""


def _mixed(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of(*_ALIKE):
        found = [facts.types.get(name, "") for name in node.input[_ALIKE[node.op_type]] if name]
        if len({kind for kind in found if kind}) > 1:
            yield Breach(
                at=node,
                expected="operands of one type",
                got=" and ".join(kind or "an unknown type" for kind in found),
                fix="cast one of them in the graph",
            )


def _operator_types(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of(*(name for name in SUPPORTED if name not in _ANY_TYPE)):
        kind = facts.types.get(_deciding(node), "")
        if kind in _VALUES and kind not in SUPPORTED[node.op_type]:
            yield Breach(
                at=node,
                expected=", ".join(SUPPORTED[node.op_type]),
                got=kind,
                fix="cast around it, or spell it in other operators",
            )


def _deciding(node: Node) -> str:
    return node.output[0] if node.op_type in _RESULT_DECIDES else operand(node, 0)


def _unknown(facts: GraphFacts) -> Iterator[Breach]:
    for node, kind in _first_of_each(facts, lambda kind: kind not in _KNOWN):
        yield Breach(
            at=node,
            expected="a type that TensorRT has",
            got=kind,
            fix="cast at the model's input, or keep it out of the graph",
        )


def _double(facts: GraphFacts) -> Iterator[Breach]:
    for node, kind in _first_of_each(facts, lambda kind: kind == "fp64"):
        yield Breach(at=node, expected="fp32 at most", got=kind, fix="export the model in fp32")


def _uint8(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.nodes:
        touched = [*node.input, *node.output]
        if node.op_type in ("Cast", "CastLike", "Constant") or not touched:
            continue
        if any(facts.types.get(name) == "uint8" for name in touched):
            yield Breach(
                at=node,
                expected="uint8 at inputs and outputs only, next to a Cast",
                got="uint8 inside the graph",
                fix="cast the input first; quantise to int8",
            )


def _quantized(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant"):
            continue
        kinds = {facts.types.get(name, "") for name in (*node.input, *node.output)} & _QUANTIZED
        target = short_name(attribute(node, "to", 0)) if node.op_type == "Cast" else ""
        if kinds or target in _QUANTIZED:
            yield Breach(
                at=node,
                expected="quantised values between QuantizeLinear and DequantizeLinear only",
                got=" and ".join(sorted(kinds or {target})),
                fix="dequantise before it",
            )


def _first_of_each(facts: GraphFacts, wrong: Callable[[str], bool]) -> Iterator[tuple[Node | str, str]]:
    """Inputs, and nodes that bring in a type that their inputs do not have: the rest follows from these."""
    for name in facts.inputs:
        if facts.types.get(name) and wrong(facts.types[name]):
            yield name, facts.types[name]
    for node in facts.nodes:
        given = {facts.types.get(name, "") for name in node.input if name not in facts.weights}
        made = [facts.types.get(name, "") for name in node.output]
        for kind in dict.fromkeys(
            (*made, *(facts.types.get(name, "") for name in node.input if name in facts.weights))
        ):
            if kind and wrong(kind) and kind not in given:
                yield node, kind


def _card(name: str, severity: Severity, why: str, source: Source = MATRIX) -> RuleCard:
    return RuleCard(id=f"trt-{name}", severity=severity, why=why, source=source)


RULES = (
    Rule(
        card=_card(
            "mixed-types", "error", "Strongly typed networks convert nothing by themselves.", _ELEMENTWISE
        ),
        check=_mixed,
    ),
    Rule(
        card=_card("operator-type", "error", "An operator's layer takes certain types."),
        check=_operator_types,
    ),
    Rule(card=_card("data-type", "error", "TensorRT has no such type."), check=_unknown),
    Rule(card=_card("uint8", "error", "uint8 is a type of inputs and outputs."), check=_uint8),
    Rule(
        card=_card("quantized-type", "error", "Narrow types come from quantisation only."), check=_quantized
    ),
    Rule(
        card=_card("double", "warning", "fp64 is cast down to fp32, and clamped to its range."), check=_double
    ),
)
