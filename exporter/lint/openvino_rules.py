"""OpenVINO: what its ONNX frontend cannot convert, and what its CPU plugin cannot run."""

from exporter.lint.graph_facts import DEFAULT_DOMAIN, GraphFacts, Node
from exporter.lint.report import Source
from exporter.lint.rule import Rule, Verdict, card, of_nodes

_FRONTEND = Source(
    title="OpenVINO, operations supported by the ONNX frontend; each operator of opset 26 converted with 2026.4.1",
    address="https://github.com/openvinotoolkit/openvino/blob/master/src/frontends/onnx/docs/supported_ops.md",
)
_CPU = Source(
    title="OpenVINO, CPU plugin: tensors with dynamically changing rank",
    address="https://github.com/openvinotoolkit/openvino/commit/3111e2394c9897f1cf940681949fabc44348b2bb",
)

_NOT_CONVERTED = (
    "BitCast CumProd DeformConv Det ImageDecoder MaxUnpool MelWeightMatrix Optional OptionalGetElement "
    "OptionalHasElement RegexFullMatch SequenceMap StringConcat StringNormalizer StringSplit TensorScatter "
    "TfIdfVectorizer"
)
NOT_CONVERTED = frozenset(_NOT_CONVERTED.split())
"""Operators of the default domain that have no conversion rule."""

_IN_PATTERNS = (
    "ConcatFromSequence SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength "
    "SplitToSequence"
)
IN_PATTERNS = frozenset(_IN_PATTERNS.split())
"""Operators that are converted together with certain neighbours only."""

_COMMUNITY = ("com.microsoft", "org.openvinotoolkit", "org.pytorch.aten", "mmdeploy", "ai.onnx.ml")


def _operator(_: GraphFacts, node: Node) -> Verdict:
    if node.domain not in (*DEFAULT_DOMAIN, *_COMMUNITY):
        return f"{node.domain}.{node.op_type}"
    return node.op_type if node.domain in DEFAULT_DOMAIN and node.op_type in NOT_CONVERTED else ""


def _rank(facts: GraphFacts, node: Node) -> Verdict:
    if node.domain not in DEFAULT_DOMAIN or node.op_type in IN_PATTERNS:
        return ""
    known = all(given in facts.shapes for given in node.input if given)
    unknown = any(name and name not in facts.shapes for name in node.output)
    return "one that cannot be inferred" if known and unknown else ""


RULES = (
    Rule(
        card=card(
            "openvino-operator",
            "error",
            "The frontend converts operators that it has rules for.",
            _FRONTEND,
        ),
        check=of_nodes(_operator),
        expected="an operator with a conversion rule",
        fix="spell it in other operators",
    ),
    Rule(
        card=card(
            "openvino-sequence", "warning", "Sequences are converted in certain patterns only.", _FRONTEND
        ),
        check=of_nodes(lambda *_: "a sequence", *IN_PATTERNS),
        expected="tensors",
        fix="index, split and join tensors instead",
    ),
    Rule(
        card=card("openvino-rank", "warning", "The CPU plugin runs no tensor of changing rank.", _CPU),
        check=of_nodes(_rank),
        expected="a result with a known number of axes",
        fix="reshape with a constant shape",
    ),
    Rule(
        card=card(
            "openvino-community",
            "note",
            "Operators of other domains are supported by the community.",
            _FRONTEND,
        ),
        check=of_nodes(lambda _, node: f"one of {node.domain}" if node.domain in _COMMUNITY else ""),
        expected="an operator of the default domain",
        fix="emit standard operators",
    ),
)
