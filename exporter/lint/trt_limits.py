"""TensorRT: opset, operators, and what single operators may not do.

The matrix has more restrictions than are checked here: those of recurrent, windowing and three-dimensional operators
are left out, since no image encoder has them.
"""

from collections.abc import Iterator

from exporter.lint.graph_facts import DEFAULT_DOMAIN, GraphFacts, attribute, operand
from exporter.lint.report import RuleCard, Source
from exporter.lint.rule import Breach, Rule
from exporter.lint.trt_operators import MATRIX, OPSETS, SUPPORTED

MOST_K = 3840

_TOPK = Source(
    title="TensorRT operators, TopK",
    address="https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/TopK.html",
)
_SCATTER_PLUGIN = Source(
    title="TensorRT plugins, scatterElements",
    address="https://github.com/NVIDIA/TensorRT/blob/main/plugin/scatterElementsPlugin/README.md",
)
_ONNX_SCATTER = Source(
    title="ONNX operators, ScatterElements: indices should have no duplicates",
    address="https://onnx.ai/onnx/operators/onnx__ScatterElements.html",
)

_REDUCTIONS = tuple(name for name in SUPPORTED if name.startswith("Reduce"))


def _opset(facts: GraphFacts) -> Iterator[Breach]:
    if facts.opset not in OPSETS:
        yield Breach(
            at="model",
            expected=f"opset {OPSETS[0]} to {OPSETS[-1]}",
            got=f"opset {facts.opset}" if facts.opset else "no opset of the default domain",
            fix=f"export with --engine-option onnx.opset={OPSETS[-1]}",
        )


def _operator(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.nodes:
        if node.domain not in DEFAULT_DOMAIN:
            yield Breach(
                at=node,
                expected="an operator of the default domain",
                got=f"one of {node.domain}",
                fix="spell it in standard operators, or load a TensorRT plugin of its name",
            )
        elif node.op_type not in SUPPORTED:
            yield Breach(
                at=node,
                expected="an operator of the matrix",
                got=node.op_type,
                fix="spell it in operators that the parser takes",
            )


def _top_k(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("TopK"):
        count = facts.scalar(operand(node, 1)) if len(node.input) > 1 else attribute(node, "k")
        if count is not None and count > MOST_K:
            yield Breach(
                at=node,
                expected=f"K of at most {MOST_K}",
                got=f"{int(count)}",
                fix="merge or keep fewer tokens per block, or use smaller images",
            )


def _top_k_order(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("TopK"):
        if attribute(node, "sorted", 1) != 1:
            yield Breach(at=node, expected="sorted = 1", got="sorted = 0", fix="ask for sorted results")


def _top_k_axis(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("TopK"):
        shape, axis = facts.shapes.get(operand(node, 0)), attribute(node, "axis", -1)
        if shape is not None and (axis if axis < 0 else axis - len(shape)) < -4:
            yield Breach(
                at=node,
                expected="one of the last four axes",
                got=f"axis {axis} of {len(shape)}",
                fix="transpose or flatten the axes before it",
            )


def _top_k_type(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("TopK"):
        kind = facts.types.get(operand(node, 0), "")
        if kind and kind not in SUPPORTED["TopK"]:
            yield Breach(
                at=node,
                expected=f"an input of {', '.join(SUPPORTED['TopK'])}",
                got=kind,
                fix="cast it first",
            )


def _scatter_nd(facts: GraphFacts) -> Iterator[Breach]:
    yield from _reducing(facts, "ScatterND", "")


def _scatter_elements(facts: GraphFacts) -> Iterator[Breach]:
    yield from _reducing(facts, "ScatterElements", ", which a plugin runs")


def _reducing(facts: GraphFacts, operator: str, more: str) -> Iterator[Breach]:
    for node in facts.of(operator):
        reduction = _reduction(node)
        if reduction != "none":
            yield Breach(
                at=node,
                expected="no reduction",
                got=f"reduction {reduction}{more}",
                fix="write the sum as a product with a one-hot matrix",
            )


def _scatter_elements_types(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("ScatterElements"):
        if _reduction(node) == "none":
            continue
        data, indices = (facts.types.get(operand(node, index), "") for index in range(2))
        if data in ("bf16", "int8") or indices == "int32":
            yield Breach(
                at=node,
                expected="data that is not bf16 or int8, and int64 indices",
                got=f"{data} data and {indices} indices",
                fix="cast them, or write the sum as a product with a one-hot matrix",
            )


def _scatter(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("Scatter", "ScatterElements", "ScatterND"):
        if _reduction(node) == "none":
            yield Breach(
                at=node,
                expected="indices without duplicates",
                got="indices that nobody has checked",
                fix="make sure that none repeats: which one wins is not defined",
            )


def _reduction(node: object) -> str:
    found = attribute(node, "reduction", b"none")  # type: ignore[arg-type]
    return found.decode() if isinstance(found, bytes) else str(found)


def _one_hot(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("OneHot"):
        if operand(node, 1) not in facts.constants:
            yield Breach(
                at=node,
                expected="a depth that is known when the engine is built",
                got="one that is computed from an input",
                fix="make the depth an initializer",
            )


def _constant_input(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of(*_REDUCTIONS, "CumSum", "Squeeze", "Unsqueeze"):
        axes = operand(node, 1)
        known = facts.weights if node.op_type in _REDUCTIONS else facts.constants
        if axes and axes not in known:
            yield Breach(
                at=node,
                expected="axes that are an initializer" if node.op_type in _REDUCTIONS else "constant axes",
                got="axes that the graph computes",
                fix="fold them into an initializer",
            )


def _layer_normalization(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("LayerNormalization"):
        if any(node.output[1:]):
            yield Breach(
                at=node,
                expected="one output",
                got=f"{len(node.output)}",
                fix="compute mean and deviation apart",
            )


def _resize(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("Resize"):
        if attribute(node, "antialias", 0):
            yield Breach(
                at=node,
                expected="no antialiasing",
                got="antialias = 1",
                fix="resize where images are loaded, or fold a constant that is resized",
            )


def _zero_point(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("QuantizeLinear", "DequantizeLinear"):
        zero = facts.value(operand(node, 2))
        if zero is not None and zero.astype("int64").any():
            yield Breach(
                at=node,
                expected="a zero point of 0",
                got=f"{int(zero.reshape(-1)[zero.reshape(-1).astype('int64').nonzero()[0][0]])}",
                fix="quantise symmetrically",
            )


def _dropout(facts: GraphFacts) -> Iterator[Breach]:
    for node in facts.of("Dropout"):
        training = operand(node, 2)
        if training and facts.scalar(training) != 0:
            yield Breach(
                at=node,
                expected="training mode off",
                got="on, or computed",
                fix="export the model in evaluation mode",
            )


def _error(name: str, why: str, source: Source = MATRIX) -> RuleCard:
    return RuleCard(id=f"trt-{name}", severity="error", why=why, source=source)


RULES = (
    Rule(card=_error("opset", "The parser reads a range of opsets."), check=_opset),
    Rule(
        card=_error("operator", "The parser refuses operators that it has no importer for."), check=_operator
    ),
    Rule(card=_error("topk-k", "The TopK layer stops at a fixed K.", _TOPK), check=_top_k),
    Rule(card=_error("topk-sorted", "The TopK layer sorts, always."), check=_top_k_order),
    Rule(
        card=_error("topk-axis", "The TopK layer works on one of the last four axes.", _TOPK),
        check=_top_k_axis,
    ),
    Rule(
        card=_error("topk-type", "The TopK layer takes floats and 32 or 64 bit integers.", _TOPK),
        check=_top_k_type,
    ),
    Rule(card=_error("scatternd-reduction", "ScatterND with a reduction has no layer."), check=_scatter_nd),
    Rule(
        card=RuleCard(
            id="trt-scatter-plugin",
            severity="warning",
            why="ScatterElements with a reduction is a plugin, which nothing fuses with.",
            source=_SCATTER_PLUGIN,
        ),
        check=_scatter_elements,
    ),
    Rule(
        card=_error("scatter-plugin-types", "That plugin takes few types.", _SCATTER_PLUGIN),
        check=_scatter_elements_types,
    ),
    Rule(
        card=RuleCard(
            id="trt-scatter",
            severity="note",
            why="Writes to one place by several sources have no defined order.",
            source=_ONNX_SCATTER,
        ),
        check=_scatter,
    ),
    Rule(card=_error("onehot-depth", "OneHot's depth shapes its output."), check=_one_hot),
    Rule(card=_error("constant-axes", "Axes shape the output, and must be known."), check=_constant_input),
    Rule(
        card=_error("layernorm-outputs", "Mean and deviation are not given out."), check=_layer_normalization
    ),
    Rule(card=_error("resize-antialias", "There is no antialiased resize."), check=_resize),
    Rule(card=_error("zero-point", "Quantisation is symmetric."), check=_zero_point),
    Rule(card=_error("dropout", "Engines do not train."), check=_dropout),
)
