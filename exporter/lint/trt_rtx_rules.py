"""TensorRT for RTX: what its parser and builder refuse.

Every rule was tried: `tests/unit/lint/test_against_rtx.py` hands the real library the graphs that break it and those
that keep it. What TensorRT's documentation refuses beyond these is taken here, such as TopK on any axis.
"""

from dataclasses import replace

from exporter.lint.graph_facts import DEFAULT_DOMAIN, GraphFacts, Node, attribute, operand
from exporter.lint.report import RuleCard, Source
from exporter.lint.rule import Rule, Verdict, Wrong, card, of_nodes
from exporter.lint.trt_attention import RULES as ATTENTION
from exporter.lint.trt_limits import ONE_HOT, reducing
from exporter.lint.trt_limits import RULES as LIMITS
from exporter.lint.trt_operators import SUPPORTED as IN_THE_MATRIX
from exporter.lint.trt_types import ALIKE, ANY_TYPE, VALUES, deciding_type, mixed
from exporter.lint.trt_types import RULES as TYPES

_TRIED = Source(
    title="TensorRT for RTX 1.7.1, its parser and builder",
    address="https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/",
)

_MISSING = ("DeformConv", "ImageScaler", "NonZero", "ParametricSoftplus", "ScaledTanh")
_ADDED = ("CausalConvWithState", "LinearAttention", "Swish")

_INTEGERS = frozenset({"int32", "int64"})
_REFUSED_TYPES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("Gelu", "IsNaN", "Mean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"), _INTEGERS),
    **dict.fromkeys(("Celu", "Range"), frozenset({"fp16", "bf16"})),
    **dict.fromkeys(("GlobalLpPool", "HardSwish", "LpNormalization", "Shrink"), frozenset({"bf16"})),
    **dict.fromkeys(("RandomNormalLike", "RandomUniformLike"), frozenset({"bf16"})),
    "Relu": frozenset({"int32"}),
}
"""Types that the matrix has and this parser has not."""

_TAKEN_TYPES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("Clip", "GlobalAveragePool", "GlobalMaxPool", "RMSNormalization"), _INTEGERS),
    "Dropout": _INTEGERS | {"bool"},
    **dict.fromkeys(("Equal", "Pad"), frozenset({"bool"})),
}
"""Types that this parser has and the matrix has not."""

SUPPORTED = {
    **{
        name: (frozenset(types) - _REFUSED_TYPES.get(name, frozenset())) | _TAKEN_TYPES.get(name, frozenset())
        for name, types in IN_THE_MATRIX.items()
        if name not in _MISSING
    },
    **dict.fromkeys(_ADDED, frozenset(VALUES)),
}
"""Types by operator."""

_UINT8_TAKEN = (
    *("Cast", "CastLike", "Constant", "DequantizeLinear", "Dropout", "Equal", "Identity", "QuantizeLinear"),
    *("Shape", "Size"),
)

HEAD_SIZES = range(9, 257)
_KERNEL_TYPES = ("fp16", "bf16")


def _operator(_: GraphFacts, node: Node) -> Verdict:
    if node.domain not in DEFAULT_DOMAIN:
        return Wrong(
            expected="an operator of the default domain",
            got=f"one of {node.domain}",
            fix="spell it in standard operators",
        )
    return "" if node.op_type in SUPPORTED else node.op_type


def _operator_types(facts: GraphFacts, node: Node) -> Verdict:
    kind, taken = deciding_type(facts, node), SUPPORTED[node.op_type]
    return Wrong(got=kind, expected=", ".join(sorted(taken))) if kind in VALUES and kind not in taken else ""


def _uint8(facts: GraphFacts, node: Node) -> Verdict:
    kinds = [facts.types.get(name) for name in (*node.input, *node.output)]
    return "uint8" if "uint8" in kinds and node.op_type not in _UINT8_TAKEN else ""


def _attention_kernel(facts: GraphFacts, node: Node) -> Verdict:
    kind, shape = facts.types.get(operand(node, 0), ""), facts.shapes.get(operand(node, 0)) or ()
    if kind and kind not in _KERNEL_TYPES:
        return kind
    if shape[-2:-1] == (1,):
        return "one query"
    channels = shape[-1] if shape else None
    if not isinstance(channels, int):
        return ""
    head = channels if len(shape) == 4 else channels // max(1, attribute(node, "q_num_heads", 1))
    return "" if head in HEAD_SIZES else f"heads of {head}"


def _error(name: str, why: str) -> RuleCard:
    return card(f"trt-rtx-{name}", "error", why, _TRIED)


def _as_tensorrt(rules: tuple[Rule, ...], *names: str) -> tuple[Rule, ...]:
    """TensorRT's own rules of those names; how attention is fused here is not documented."""
    by_name = {rule.card.id.removeprefix("trt-"): rule for rule in rules}
    return tuple(
        replace(by_name[name], card=_error(name, by_name[name].card.why), attention=False) for name in names
    )


RULES = (
    Rule(
        card=_error("operator", "The parser refuses operators that it has no importer for."),
        check=of_nodes(_operator),
        expected="an operator that the parser knows",
        fix="spell it in operators that the parser takes",
    ),
    Rule(
        card=_error("operator-type", "An operator's layer takes certain types."),
        check=of_nodes(_operator_types, *(name for name in SUPPORTED if name not in ANY_TYPE)),
        fix="cast around it, or spell it in other operators",
    ),
    Rule(
        card=_error("mixed-types", "Strongly typed networks convert nothing by themselves."),
        check=of_nodes(mixed, *(name for name in ALIKE if name != "Pow")),
        expected="operands of one type",
        fix="cast one of them in the graph",
    ),
    Rule(
        card=_error("uint8", "Few operators take uint8."),
        check=of_nodes(_uint8),
        expected="uint8 at inputs and outputs only, next to a Cast",
        fix="cast the input first",
    ),
    Rule(
        card=_error("scatter-reduction", "Neither scatter takes a reduction, and there is no plugin for it."),
        check=of_nodes(lambda _, node: reducing(node), "ScatterElements", "ScatterND"),
        expected="no reduction",
        fix=ONE_HOT,
    ),
    Rule(
        card=_error("attention-kernel", "The Attention operator has kernels for some types and sizes."),
        check=of_nodes(_attention_kernel, "Attention"),
        expected=f"fp16 or bf16, heads of {HEAD_SIZES[0]} to {HEAD_SIZES[-1]} channels, and several queries",
        fix="emit decomposed attention, or export with --precision fp16 or bf16",
    ),
    *_as_tensorrt(
        LIMITS,
        "topk-k",
        "constant-axes",
        "layernorm-outputs",
        "resize-antialias",
        "zero-point",
        "dropout",
    ),
    *_as_tensorrt(TYPES, "data-type"),
    *_as_tensorrt(ATTENTION, "attention-operator-mask-type"),
)
