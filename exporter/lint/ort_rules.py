"""ONNX Runtime: what its CPU provider refuses, and which attention kernel its CUDA provider takes.

What was run was run with ONNX Runtime 1.31.1.
"""

from collections.abc import Iterator

from exporter.lint.attention import Attention, attentions, head_size, logits_shape
from exporter.lint.graph_facts import DEFAULT_DOMAIN, GraphFacts, operand, shape_text
from exporter.lint.report import RuleCard, Severity, Source
from exporter.lint.rule import Breach, Rule

OPSETS = range(7, 27)
NEWEST_IR = 13
MOST_FLASH_CHANNELS = 256

_LOADED = Source(
    title="ONNX Runtime 1.31.1, run: it names these limits when it refuses a model; compatibility page",
    address="https://onnxruntime.ai/docs/reference/compatibility.html",
)
_KERNELS = Source(
    title="ONNX Runtime issue 28768: no bfloat16 arithmetic on the CPU; each operator run with 1.31.1",
    address="https://github.com/microsoft/onnxruntime/issues/28768",
)
_ATTENTION = Source(
    title="ONNX Runtime 1.31.1, run: masks of one query are refused, though the operator allows them",
    address="https://onnx.ai/onnx/operators/onnx__Attention.html",
)
_CUDA = Source(
    title="ONNX Runtime pull request 27831, and multihead_attention.cc for the operator of com.microsoft",
    address="https://github.com/microsoft/onnxruntime/pull/27831",
)
_CUSTOM = Source(
    title="ONNX Runtime, custom operators",
    address="https://onnxruntime.ai/docs/reference/operators/add-custom-op.html",
)
_CONTRIB = Source(
    title="ONNX Runtime, contributed operators",
    address="https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md",
)

_NO_BF16 = (
    "Abs Add Attention Conv Div Einsum Equal Erf Exp Expand Gelu Gemm Greater GreaterOrEqual Less LessOrEqual Log "
    "MatMul Max Min Mul Neg Pad Pow RMSNormalization Reciprocal ReduceL2 ReduceMax ReduceMean ReduceSum Relu "
    "Sigmoid Softmax Sqrt Sub Tanh Tile TopK"
)
REFUSED_ON_CPU = {"bf16": frozenset(_NO_BF16.split()), "fp64": frozenset({"Conv", "Erf", "Gelu"})}
"""Operators that have no kernel of a type. Those that only move bytes have, and fp16 is computed in fp32."""

_OWN_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
_ONNX_DOMAINS = (*DEFAULT_DOMAIN, "ai.onnx.ml")


def _opset(facts: GraphFacts) -> Iterator[Breach]:
    if facts.opset and facts.opset not in OPSETS:
        yield Breach(
            at="model",
            expected=f"opset {OPSETS[0]} to {OPSETS[-1]}",
            got=f"opset {facts.opset}",
            fix=f"export with --engine-option onnx.opset={OPSETS[-1]}, or use a later ONNX Runtime",
        )


def _ir_version(facts: GraphFacts) -> Iterator[Breach]:
    if facts.ir_version > NEWEST_IR:
        yield Breach(
            at="model",
            expected=f"IR version {NEWEST_IR} at most",
            got=f"{facts.ir_version}",
            fix="export with an earlier onnx.opset, whose IR version is earlier too, or use a later ONNX Runtime",
        )


def _domain(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.nodes:
        if node.domain not in (*_ONNX_DOMAINS, *_OWN_DOMAINS):
            yield Breach(
                at=node,
                expected="an operator of ONNX or of com.microsoft",
                got=f"one of {node.domain}",
                fix="spell it in standard operators, or register a library that has it",
            )


def _own_domain(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.nodes:
        if node.domain in _OWN_DOMAINS:
            yield Breach(
                at=node,
                expected="an operator that other engines have as well",
                got=f"one of {node.domain}",
                fix="run this file with ONNX Runtime only",
            )


def _no_kernel(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.nodes:
        for name in (*node.input[:2], *node.output[:1]):
            kind = facts.types.get(name, "")
            if node.domain in DEFAULT_DOMAIN and node.op_type in REFUSED_ON_CPU.get(kind, ()):
                yield Breach(
                    at=node,
                    expected="a type that the CPU provider computes in",
                    got=kind,
                    fix="export in fp32 or fp16, or run it on CUDA",
                )
                break


def _mask(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("Attention"):
        query, key = facts.shapes.get(operand(node, 0)), facts.shapes.get(operand(node, 1))
        mask = facts.shapes.get(operand(node, 3))
        if not query or not key or mask is None or len(mask) < 2 or operand(node, 4):
            continue
        wanted = query[-2], key[-2]
        if any(
            isinstance(a, int) and isinstance(b, int) and a != b
            for a, b in zip(mask[-2:], wanted, strict=True)
        ):
            yield Breach(
                at=node,
                expected=f"a mask over {wanted[0]} queries and {wanted[1]} keys",
                got=shape_text(mask),
                fix="expand it over queries and keys",
            )


def _unfused(facts: GraphFacts) -> Iterator[Breach]:
    for site in attentions(facts):
        missing = _missing(facts, site)
        if missing:
            yield Breach(
                at=site.node,
                expected="flash or memory-efficient attention on CUDA",
                got=f"separate kernels, for want of {missing}",
                fix="emit another form of attention or mask, or accept it",
            )


def _missing(facts: GraphFacts, site: Attention) -> str:
    """What both fused kernels lack here; empty where one of them runs."""
    if site.decomposed:
        return "an attention operator"
    size = head_size(facts, site)
    if size is not None and size % 8:
        return f"heads of a multiple of 8 channels, not {size}"
    if not site.mask:
        return ""
    own = site.node.domain not in DEFAULT_DOMAIN
    step = _mask_step(facts.types.get(site.query, ""), own=own)
    tokens = _tokens(facts, site, own=own)
    if tokens is not None and tokens % step:
        return f"a mask over a multiple of {step} tokens, not {tokens}"
    return ""


def _not_flash(facts: GraphFacts) -> Iterator[Breach]:
    for site in attentions(facts):
        against = _against_flash(facts, site)
        if against and not _missing(facts, site):
            yield Breach(
                at=site.node,
                expected="flash attention on CUDA",
                got=f"memory-efficient attention, because of {against}",
                fix="fold the mask into query and key, and export in fp16 or bf16",
            )


def _against_flash(facts: GraphFacts, site: Attention) -> str:
    size, kind = head_size(facts, site), facts.types.get(site.query, "")
    if site.mask:
        return "the mask"
    if kind == "fp32":
        return kind
    return f"heads of {size} channels" if size is not None and size > MOST_FLASH_CHANNELS else ""


def _mask_step(kind: str, *, own: bool) -> int:
    """Rows of a mask start at multiples of this many elements."""
    if not own:
        return 4
    return 16 if kind == "fp32" else 8


def _tokens(facts: GraphFacts, site: Attention, *, own: bool) -> int | None:
    if own:
        query = facts.shapes.get(site.query)
        found = query[1] if query is not None and len(query) == 3 else None
    else:
        logits = logits_shape(facts, site)
        found = logits[-1] if logits is not None else None
    return found if isinstance(found, int) else None


def _card(name: str, severity: Severity, why: str, source: Source) -> RuleCard:
    return RuleCard(id=f"ort-{name}", severity=severity, why=why, source=source)


RULES = (
    Rule(card=_card("opset", "error", "Newer opsets are refused.", _LOADED), check=_opset),
    Rule(card=_card("ir-version", "error", "Newer files are refused.", _LOADED), check=_ir_version),
    Rule(card=_card("domain", "error", "Unknown operators are refused.", _CUSTOM), check=_domain),
    Rule(
        card=_card("cpu-kernel", "error", "The CPU provider has no kernel of that type.", _KERNELS),
        check=_no_kernel,
        devices=("cpu",),
    ),
    Rule(
        card=_card(
            "attention-mask", "error", "The CPU provider broadcasts no mask over queries.", _ATTENTION
        ),
        check=_mask,
        devices=("cpu",),
    ),
    Rule(
        card=_card("attention-unfused", "note", "Fused kernels have conditions.", _CUDA),
        check=_unfused,
        attention=True,
    ),
    Rule(card=_card("attention-kernel", "note", "Flash attention takes no mask.", _CUDA), check=_not_flash),
    Rule(
        card=_card("own-domain", "note", "These operators exist in ONNX Runtime only.", _CONTRIB),
        check=_own_domain,
    ),
)
