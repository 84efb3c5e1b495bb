"""ONNX Runtime: what its CPU provider refuses, and which attention kernel its CUDA provider takes.

What was run was run with ONNX Runtime 1.31.1.
"""

from exporter.lint.attention import Attention, head_size, is_narrow, logits_shape
from exporter.lint.graph_facts import DEFAULT_DOMAIN, GraphFacts, Node, operand, shape_text
from exporter.lint.report import Source
from exporter.lint.rule import Rule, Verdict, Wrong, card, of_attentions, of_model, of_nodes

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


def _no_kernel(facts: GraphFacts, node: Node) -> Verdict:
    kinds = (facts.types.get(name, "") for name in (*node.input[:2], *node.output[:1]))
    if node.domain not in DEFAULT_DOMAIN:
        return ""
    return next((kind for kind in kinds if node.op_type in REFUSED_ON_CPU.get(kind, ())), "")


def _mask(facts: GraphFacts, node: Node) -> Verdict:
    query, key, _, mask = (facts.shapes.get(operand(node, index)) for index in range(4))
    if not query or not key or mask is None or len(mask) < 2 or operand(node, 4):
        return ""
    if not is_narrow(mask, query[-2], key[-2]):
        return ""
    return Wrong(expected=f"a mask over {query[-2]} queries and {key[-2]} keys", got=shape_text(mask))


def _unfused(facts: GraphFacts, site: Attention) -> Verdict:
    missing = _missing(facts, site)
    return f"separate kernels, for want of {missing}" if missing else ""


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


def _not_flash(facts: GraphFacts, site: Attention) -> Verdict:
    against = _against_flash(facts, site)
    if not against or _missing(facts, site):
        return ""
    return f"memory-efficient attention, because of {against}"


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


RULES = (
    Rule(
        card=card("ort-opset", "error", "Newer opsets are refused.", _LOADED),
        check=of_model(
            lambda facts: f"opset {facts.opset}" if facts.opset and facts.opset not in OPSETS else ""
        ),
        expected=f"opset {OPSETS[0]} to {OPSETS[-1]}",
        fix=f"export with --engine-option onnx.opset={OPSETS[-1]}, or use a later ONNX Runtime",
    ),
    Rule(
        card=card("ort-ir-version", "error", "Newer files are refused.", _LOADED),
        check=of_model(lambda facts: f"{facts.ir_version}" if facts.ir_version > NEWEST_IR else ""),
        expected=f"IR version {NEWEST_IR} at most",
        fix="export with an earlier onnx.opset, whose IR version is earlier too, or use a later ONNX Runtime",
    ),
    Rule(
        card=card("ort-domain", "error", "Unknown operators are refused.", _CUSTOM),
        check=of_nodes(
            lambda _, node: "" if node.domain in (*_ONNX_DOMAINS, *_OWN_DOMAINS) else f"one of {node.domain}"
        ),
        expected="an operator of ONNX or of com.microsoft",
        fix="spell it in standard operators, or register a library that has it",
    ),
    Rule(
        card=card("ort-cpu-kernel", "error", "The CPU provider has no kernel of that type.", _KERNELS),
        check=of_nodes(_no_kernel),
        expected="a type that the CPU provider computes in",
        fix="export in fp32 or fp16, or run it on CUDA",
        devices=("cpu",),
    ),
    Rule(
        card=card(
            "ort-attention-mask", "error", "The CPU provider broadcasts no mask over queries.", _ATTENTION
        ),
        check=of_nodes(_mask, "Attention"),
        fix="expand it over queries and keys",
        devices=("cpu",),
    ),
    Rule(
        card=card("ort-attention-unfused", "note", "Fused kernels have conditions.", _CUDA),
        check=of_attentions(_unfused),
        expected="flash or memory-efficient attention on CUDA",
        fix="emit another form of attention or mask, or accept it",
        attention=True,
    ),
    Rule(
        card=card("ort-attention-kernel", "note", "Flash attention takes no mask.", _CUDA),
        check=of_attentions(_not_flash),
        expected="flash attention on CUDA",
        fix="fold the mask into query and key, and export in fp16 or bf16",
    ),
    Rule(
        card=card("ort-own-domain", "note", "These operators exist in ONNX Runtime only.", _CONTRIB),
        check=of_nodes(lambda _, node: f"one of {node.domain}" if node.domain in _OWN_DOMAINS else ""),
        expected="an operator that other engines have as well",
        fix="run this file with ONNX Runtime only",
    ),
)
