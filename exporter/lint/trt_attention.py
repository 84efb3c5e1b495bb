"""TensorRT: what keeps an attention from running as one fused kernel, as far as that is documented.

The builder may decline for reasons of its own, such as its timings; the built engine's layers tell.
"""

from collections.abc import Iterator

from exporter.lint.attention import Attention, attentions, head_size, logits_shape
from exporter.lint.graph_facts import GraphFacts, Node, attribute, operand, shape_text
from exporter.lint.report import RuleCard, Severity, Source
from exporter.lint.rule import Breach, Check, Rule
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


def _scale(facts: GraphFacts) -> Iterator[Breach]:
    for site in attentions(facts):
        late = [node for node in site.before if node.op_type in ("Mul", "Div") and _by_constant(facts, node)]
        if late:
            yield Breach(
                at=site.node,
                expected="the scale on the query or the key, or its root on both, before the product",
                got=f"{late[0].op_type} behind it",
                fix="multiply the query, or fold the scale into its projection",
            )


def _by_constant(facts: GraphFacts, node: Node) -> bool:
    return any(name in facts.constants for name in node.input)


def _pattern(facts: GraphFacts) -> Iterator[Breach]:
    for site in attentions(facts):
        between = [node.op_type for node in _foreign(facts, site)]
        products = [node.op_type for node in site.products if node.op_type != "MatMul"]
        axis = attribute(site.node, "axis", -1)
        logits = logits_shape(facts, site)
        wrong = [
            *between,
            *products,
            *(["Softmax of another axis"] if site.decomposed and not _is_last(axis, logits) else []),
        ]
        if wrong:
            yield Breach(
                at=site.node,
                expected="MatMul, at most one Add, Softmax of the last axis, MatMul, and nothing in between",
                got=", ".join(wrong),
                fix="move it out of the attention",
            )


def _is_last(axis: int, logits: tuple[object, ...] | None) -> bool:
    return axis == -1 or (logits is not None and axis == len(logits) - 1)


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


def _precision(facts: GraphFacts) -> Iterator[Breach]:
    for site in attentions(facts):
        kinds = {facts.types.get(name, "") for name in _factors(site)} - {""}
        if kinds and not kinds <= set(_HALF) and not _quantized(facts, site):
            yield Breach(
                at=site.node,
                expected="products of fp16, bf16 or int8",
                got=" and ".join(sorted(kinds)),
                fix="export with --precision fp16 or bf16",
            )


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


def _head_size(facts: GraphFacts) -> Iterator[Breach]:
    for site in attentions(facts):
        size = head_size(facts, site)
        if size is not None and size not in FUSED_HEAD_SIZES:
            yield Breach(
                at=site.node,
                expected=f"heads of {FUSED_HEAD_SIZES[0]} to {FUSED_HEAD_SIZES[-1]} channels",
                got=f"{size}",
                fix="choose a model with other heads, or accept separate kernels",
            )


def _head_step(facts: GraphFacts) -> Iterator[Breach]:
    for site in attentions(facts):
        size = head_size(facts, site)
        if size is not None and size in FUSED_HEAD_SIZES and size % FUSED_HEAD_STEP:
            yield Breach(
                at=site.node,
                expected=f"a multiple of {FUSED_HEAD_STEP} channels per head",
                got=f"{size}",
                fix="use TensorRT 10.14 or later, which pads them; older versions do not fuse",
            )


def _int8(facts: GraphFacts) -> Iterator[Breach]:
    for site in attentions(facts):
        size, logits = head_size(facts, site), logits_shape(facts, site)
        if size is None or logits is None or not _quantized(facts, site):
            continue
        tokens = max((each for each in logits[-2:] if isinstance(each, int)), default=0)
        if size not in INT8_HEAD_SIZES or tokens > INT8_MOST_TOKENS:
            yield Breach(
                at=site.node,
                expected=f"heads of {', '.join(map(str, INT8_HEAD_SIZES))} channels, {INT8_MOST_TOKENS} tokens at most",
                got=f"{size} channels, {tokens} tokens",
                fix="leave the attention's products unquantised",
            )


def _mask(facts: GraphFacts) -> Iterator[Breach]:
    for site in attentions(facts):
        if site.decomposed:
            yield from _narrow_masks(
                facts, site, fix="emit with the mask expanded, or folded into query and key"
            )


def _mask_of_operator(facts: GraphFacts) -> Iterator[Breach]:
    for site in attentions(facts):
        if not site.decomposed:
            yield from _narrow_masks(facts, site, fix="expand it over queries and keys")


def _narrow_masks(facts: GraphFacts, site: Attention, *, fix: str) -> Iterator[Breach]:
    logits = logits_shape(facts, site)
    for name in site.mask:
        mask = facts.shapes.get(name)
        if mask is None or logits is None:
            continue
        last = ((1, 1, *mask) if len(mask) < 2 else mask)[-2:]
        if any(
            isinstance(a, int) and isinstance(b, int) and a != b
            for a, b in zip(last, logits[-2:], strict=True)
        ):
            yield Breach(
                at=site.node,
                expected=f"a mask over {logits[-2]} queries and {logits[-1]} keys",
                got=shape_text(mask),
                fix=fix,
            )


def _mask_type(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("Attention"):
        query, mask = facts.types.get(operand(node, 0), ""), facts.types.get(operand(node, 3), "")
        if query and mask not in ("", "bool", query):
            yield Breach(at=node, expected=f"a mask of {query} or bool", got=mask, fix="cast the mask")


def _operator(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("Attention"):
        for what in _unsupported_parts(facts, node):
            yield Breach(
                at=node,
                expected="queries, keys, values and a mask of four axes, and one output",
                got=what,
                fix="emit decomposed attention",
            )


def _unsupported_parts(facts: GraphFacts, node: Node) -> Iterator[str]:
    for index, name in enumerate(("Q", "K", "V", "attn_mask")):
        shape = facts.shapes.get(operand(node, index))
        if operand(node, index) and shape is not None and len(shape) != 4:
            yield f"{name} of {len(shape)} axes"
    for index, name in ((4, "past_key"), (5, "past_value"), (6, "nonpad_kv_seqlen")):
        if operand(node, index):
            yield name
    for name in ("softcap", "qk_matmul_output_mode"):
        if attribute(node, name, 0):
            yield name
    if any(node.output[1:]):
        yield "further outputs"


def _rule(name: str, why: str, source: Source, check: Check, severity: Severity = "warning") -> Rule:
    card = RuleCard(id=f"trt-attention-{name}", severity=severity, why=why, source=source)
    return Rule(card=card, check=check, attention=severity != "note")


RULES = (
    _rule("operator", "The importer takes a part of the Attention operator.", MATRIX, _operator, "error"),
    _rule("operator-mask", "A mask broadcasts over batch and heads only.", _MASK, _mask_of_operator, "error"),
    _rule("operator-mask-type", "A mask is boolean, or of the query's type.", _MASK, _mask_type, "error"),
    _rule("scale", "Fusion wants the scale applied before the first product.", _FUSED, _scale),
    _rule("pattern", "Fusion looks for product, mask, softmax, product.", _FUSED, _pattern),
    _rule("precision", "Fused kernels exist for fp16, bf16 and int8.", _LIMITS, _precision),
    _rule("head-size", "Fused kernels exist for some head sizes.", _LIMITS, _head_size),
    _rule("int8", "Quantised attention is fused for few sizes.", _LIMITS, _int8),
    _rule(
        "mask",
        "A mask broadcasts over batch and heads only; nothing else is documented to fuse.",
        _MASK,
        _mask,
    ),
    _rule("head-padding", "Heads are padded to a multiple of 8 channels.", _PADDING, _head_step, "note"),
)
