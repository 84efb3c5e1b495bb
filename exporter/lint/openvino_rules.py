"""OpenVINO: what its ONNX frontend cannot convert, and what its CPU plugin cannot run."""

from collections.abc import Iterator

from exporter.lint.graph_facts import DEFAULT_DOMAIN, GraphFacts
from exporter.lint.report import RuleCard, Severity, Source
from exporter.lint.rule import Breach, Rule

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


def _operator(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.nodes:
        unknown = node.domain not in (*DEFAULT_DOMAIN, *_COMMUNITY)
        if unknown or (node.domain in DEFAULT_DOMAIN and node.op_type in NOT_CONVERTED):
            yield Breach(
                at=node,
                expected="an operator with a conversion rule",
                got=f"{node.domain}.{node.op_type}" if unknown else node.op_type,
                fix="spell it in other operators",
            )


def _community(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.nodes:
        if node.domain in _COMMUNITY:
            yield Breach(
                at=node,
                expected="an operator of the default domain",
                got=f"one of {node.domain}",
                fix="emit standard operators",
            )


def _sequence(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of(*IN_PATTERNS):
        yield Breach(
            at=node,
            expected="tensors",
            got="a sequence",
            fix="index, split and join tensors instead",
        )


def _rank(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.nodes:
        if node.domain not in DEFAULT_DOMAIN or node.op_type in IN_PATTERNS:
            continue
        for name in node.output:
            known = all(given in facts.shapes for given in node.input if given)
            if name and name not in facts.shapes and known:
                yield Breach(
                    at=node,
                    expected="a result with a known number of axes",
                    got="one that cannot be inferred",
                    fix="reshape with a constant shape",
                )
                break


def _card(name: str, severity: Severity, why: str, source: Source) -> RuleCard:
    return RuleCard(id=f"openvino-{name}", severity=severity, why=why, source=source)


RULES = (
    Rule(
        card=_card("operator", "error", "The frontend converts operators that it has rules for.", _FRONTEND),
        check=_operator,
    ),
    Rule(
        card=_card("sequence", "warning", "Sequences are converted in certain patterns only.", _FRONTEND),
        check=_sequence,
    ),
    Rule(card=_card("rank", "warning", "The CPU plugin runs no tensor of changing rank.", _CPU), check=_rank),
    Rule(
        card=_card(
            "community", "note", "Operators of other domains are supported by the community.", _FRONTEND
        ),
        check=_community,
    ),
)
