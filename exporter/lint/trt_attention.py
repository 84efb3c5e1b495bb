"""TensorRT: what keeps an attention from running as one fused kernel, as far as that is documented.

The builder may decline for reasons of its own, such as its timings; the layers of the built engine show what it did.
"""

from collections.abc import Iterator

from exporter.lint.attention import Attention, attentions, head_size, is_narrow, logits_shape
from exporter.lint.graph_facts import GraphFacts, Node, attribute, operand, shape_text
from exporter.lint.report import Source
from exporter.lint.rule import Check, Rule, Verdict, Wrong, card, of_attentions, of_nodes
from exporter.lint.trt_operators import MATRIX

FUSED_HEAD_SIZES = range(16, 257)
FUSED_HEAD_STEP = 8
INT8_HEAD_SIZES = (16, 32, 64)
INT8_MOST_TOKENS = 512

_FUSED = Source(
    title="TensorRT, Fused Attention",
    address="https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/transformers-fused-attention.html",
)
_LIMITS = Source(
    title="TensorRT developer guide, restrictions of MHA fusion, as quoted in issue 2981",
    address="https://github.com/NVIDIA/TensorRT/issues/2981",
)
_PADDING = Source(
    title="TensorRT 10.14.1 release notes: head sizes are padded automatically",
    address="https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-10/10.14.1.html",
)
_MASK = Source(
    title="TensorRT operators, Attention: a mask is (a0, a1, s_q, s_kv), a0 and a1 broadcast",
    address="https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/Attention.html",
)

_HALF = ("fp16", "bf16")


def _scale(facts: GraphFacts, site: Attention) -> Verdict:
    late = [node for node in site.before if node.op_type in ("Mul", "Div") and _by_constant(facts, node)]
    return f"{late[0].op_type} after it" if late else ""


def _by_constant(facts: GraphFacts, node: Node) -> bool:
    return any(name in facts.constants for name in node.input)


def _pattern(facts: GraphFacts, site: Attention) -> Verdict:
    wrong = [node.op_type for node in _foreign(facts, site)]
    wrong += [node.op_type for node in site.products if node.op_type != "MatMul"]
    axis, logits = attribute(site.node, "axis", -1), logits_shape(facts, site)
    is_last = axis == -1 or (logits is not None and axis == len(logits) - 1)
    if site.decomposed and not is_last:
        wrong.append("Softmax of another axis")
    return ", ".join(wrong)


def _foreign(facts: GraphFacts, site: Attention) -> Iterator[Node]:
    """What the pattern has no place for; a late scale is another rule's."""
    allowed_adds = 1
    quantized = _quantized(facts, site)
    for node in site.before:
        if node.op_type == "Add" and allowed_adds:
            allowed_adds -= 1
        elif not (node.op_type in ("Mul", "Div") and _by_constant(facts, node)):
            yield node
    for node in site.after:
        if not (quantized and node.op_type in ("QuantizeLinear", "DequantizeLinear")):
            yield node


def _precision(facts: GraphFacts, site: Attention) -> Verdict:
    kinds = {facts.types.get(name, "") for name in _factors(site)} - {""}
    return "" if kinds <= set(_HALF) or _quantized(facts, site) else " and ".join(sorted(kinds))


def _factors(site: Attention) -> tuple[str, ...]:
    if not site.decomposed:
        return site.query, site.key, site.value
    first, second = site.products
    return (*first.input[:2], *second.input[:2])


def _quantized(facts: GraphFacts, site: Attention) -> bool:
    return all(_is_dequantized(facts, name) for name in (site.query, site.key))


def _is_dequantized(facts: GraphFacts, name: str) -> bool:
    node = facts.producers.get(name)
    while node is not None and node.op_type in ("Mul", "Reshape", "Transpose"):
        node = facts.producers.get(operand(node, 0))
    return node is not None and node.op_type == "DequantizeLinear"


def _head_size(facts: GraphFacts, site: Attention) -> Verdict:
    size = head_size(facts, site)
    return "" if size is None or size in FUSED_HEAD_SIZES else f"{size}"


def _head_step(facts: GraphFacts, site: Attention) -> Verdict:
    size = head_size(facts, site)
    is_padded = size is not None and size in FUSED_HEAD_SIZES and size % FUSED_HEAD_STEP
    return f"{size}" if is_padded else ""


def _int8(facts: GraphFacts, site: Attention) -> Verdict:
    size, logits = head_size(facts, site), logits_shape(facts, site)
    if size is None or logits is None or not _quantized(facts, site):
        return ""
    tokens = max((each for each in logits[-2:] if isinstance(each, int)), default=0)
    is_fused = size in INT8_HEAD_SIZES and tokens <= INT8_MOST_TOKENS
    return "" if is_fused else f"{size} channels, {tokens} tokens"


def _masks(*, decomposed: bool) -> Check:
    """The masks of attentions that are spelled out, or of those that are one operator."""

    def check(facts: GraphFacts) -> Iterator[tuple[Node, Verdict]]:
        for site in attentions(facts):
            logits = logits_shape(facts, site)
            for mask in map(facts.shapes.get, site.mask):
                if logits is not None and site.decomposed == decomposed and is_narrow(mask, *logits[-2:]):
                    expected = f"a mask over {logits[-2]} queries and {logits[-1]} keys"
                    yield site.node, Wrong(expected=expected, got=shape_text(mask))

    return check


def _mask_type(facts: GraphFacts, node: Node) -> Verdict:
    query, mask = facts.types.get(operand(node, 0), ""), facts.types.get(operand(node, 3), "")
    if not query or mask in ("", "bool", query):
        return ""
    return Wrong(expected=f"a mask of {query} or bool", got=mask)


def _operator(facts: GraphFacts) -> Iterator[tuple[Node, str]]:
    for node in facts.of("Attention"):
        for index, name in enumerate(("Q", "K", "V", "attn_mask")):
            shape = facts.shapes.get(operand(node, index))
            if operand(node, index) and shape is not None and len(shape) != 4:
                yield node, f"{name} of {len(shape)} axes"
        for index, name in ((4, "past_key"), (5, "past_value"), (6, "nonpad_kv_seqlen")):
            if operand(node, index):
                yield node, name
        for name in ("softcap", "qk_matmul_output_mode"):
            if attribute(node, name, 0):
                yield node, name
        if any(node.output[1:]):
            yield node, "further outputs"


RULES = (
    Rule(
        card=card(
            "trt-attention-operator", "error", "The importer takes a part of the Attention operator.", MATRIX
        ),
        check=_operator,
        expected="queries, keys, values and a mask of four axes, and one output",
        fix="emit decomposed attention",
        attention=True,
    ),
    Rule(
        card=card(
            "trt-attention-operator-mask", "error", "A mask broadcasts over batch and heads only.", _MASK
        ),
        check=_masks(decomposed=False),
        fix="expand it over queries and keys",
        attention=True,
    ),
    Rule(
        card=card(
            "trt-attention-operator-mask-type", "error", "A mask is boolean, or of the query's type.", _MASK
        ),
        check=of_nodes(_mask_type, "Attention"),
        fix="cast the mask",
        attention=True,
    ),
    Rule(
        card=card(
            "trt-attention-scale",
            "warning",
            "Fusion wants the scale applied before the first product.",
            _FUSED,
        ),
        check=of_attentions(_scale),
        expected="the scale on the query or the key, or its root on both, before the product",
        fix="multiply the query, or fold the scale into its projection",
        attention=True,
    ),
    Rule(
        card=card(
            "trt-attention-pattern", "warning", "Fusion looks for product, mask, softmax, product.", _FUSED
        ),
        check=of_attentions(_pattern),
        expected="MatMul, at most one Add, Softmax of the last axis, MatMul, and nothing in between",
        fix="move it out of the attention",
        attention=True,
    ),
    Rule(
        card=card(
            "trt-attention-precision", "warning", "Fused kernels exist for fp16, bf16 and int8.", _LIMITS
        ),
        check=of_attentions(_precision),
        expected="products of fp16, bf16 or int8",
        fix="export with --precision fp16 or bf16",
        attention=True,
    ),
    Rule(
        card=card("trt-attention-head-size", "warning", "Fused kernels exist for some head sizes.", _LIMITS),
        check=of_attentions(_head_size),
        expected=f"heads of {FUSED_HEAD_SIZES[0]} to {FUSED_HEAD_SIZES[-1]} channels",
        fix="choose a model with other heads, or accept separate kernels",
        attention=True,
    ),
    Rule(
        card=card("trt-attention-int8", "warning", "Quantised attention is fused for few sizes.", _LIMITS),
        check=of_attentions(_int8),
        expected=f"heads of {', '.join(map(str, INT8_HEAD_SIZES))} channels, {INT8_MOST_TOKENS} tokens at most",
        fix="leave the attention's products unquantised",
        attention=True,
    ),
    Rule(
        card=card(
            "trt-attention-mask",
            "warning",
            "A mask broadcasts over batch and heads only; nothing else is documented to fuse.",
            _MASK,
        ),
        check=_masks(decomposed=True),
        fix="emit with the mask expanded, or folded into query and key",
        attention=True,
    ),
    Rule(
        card=card(
            "trt-attention-head-padding", "note", "Heads are padded to a multiple of 8 channels.", _PADDING
        ),
        check=of_attentions(_head_step),
        expected=f"a multiple of {FUSED_HEAD_STEP} channels per head",
        fix="use TensorRT 10.14 or later, which pads them; older versions do not fuse",
    ),
)
