"""TensorRT: opset, operators, and what single operators may not do.

The matrix has more restrictions than are checked here: those of recurrent, windowing and three-dimensional operators
are left out, since no image encoder has them.
"""

from exporter.lint.graph_facts import DEFAULT_DOMAIN, GraphFacts, Node, attribute, operand
from exporter.lint.report import RuleCard, Source
from exporter.lint.rule import Rule, Verdict, Wrong, card, of_model, of_nodes
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
_SCATTERS = ("Scatter", "ScatterElements", "ScatterND")
ONE_HOT = "write the sum as a product with a one-hot matrix"


def _opset(facts: GraphFacts) -> Verdict:
    if facts.opset in OPSETS:
        return ""
    return f"opset {facts.opset}" if facts.opset else "no opset of the default domain"


def _operator(_: GraphFacts, node: Node) -> Verdict:
    if node.domain not in DEFAULT_DOMAIN:
        return Wrong(
            expected="an operator of the default domain",
            got=f"one of {node.domain}",
            fix="spell it in standard operators, or load a TensorRT plugin of its name",
        )
    return "" if node.op_type in SUPPORTED else node.op_type


def _top_k(facts: GraphFacts, node: Node) -> Verdict:
    count = facts.scalar(operand(node, 1)) if len(node.input) > 1 else attribute(node, "k")
    return f"{int(count)}" if count is not None and count > MOST_K else ""


def _top_k_axis(facts: GraphFacts, node: Node) -> Verdict:
    shape, axis = facts.shapes.get(operand(node, 0)), attribute(node, "axis", -1)
    is_far = shape is not None and (axis if axis < 0 else axis - len(shape)) < -4
    return f"axis {axis} of {len(shape or ())}" if is_far else ""


def _top_k_type(facts: GraphFacts, node: Node) -> Verdict:
    kind = facts.types.get(operand(node, 0), "")
    return "" if kind in SUPPORTED["TopK"] else kind


def _scatter_types(facts: GraphFacts, node: Node) -> Verdict:
    data, indices = (facts.types.get(operand(node, index), "") for index in range(2))
    is_wrong = _reduction(node) != "none" and (data in ("bf16", "int8") or indices == "int32")
    return f"{data} data and {indices} indices" if is_wrong else ""


def _reduction(node: Node) -> str:
    found = attribute(node, "reduction", b"none")
    return found.decode() if isinstance(found, bytes) else str(found)


def reducing(node: Node, more: str = "") -> Verdict:
    """The reduction of a scatter; empty where it has none."""
    reduction = _reduction(node)
    return "" if reduction == "none" else f"reduction {reduction}{more}"


def _constant_axes(facts: GraphFacts, node: Node) -> Verdict:
    axes, is_reduction = operand(node, 1), node.op_type in _REDUCTIONS
    if not axes or axes in (facts.weights if is_reduction else facts.constants):
        return ""
    expected = "axes that are an initializer" if is_reduction else "constant axes"
    return Wrong(expected=expected, got="axes that the graph computes")


def _zero_point(facts: GraphFacts, node: Node) -> Verdict:
    zero = facts.value(operand(node, 2))
    wrong = [] if zero is None else [each for each in zero.reshape(-1).astype("int64") if each]
    return f"{wrong[0]}" if wrong else ""


def _dropout(facts: GraphFacts, node: Node) -> Verdict:
    training = operand(node, 2)
    return "on, or computed" if training and facts.scalar(training) != 0 else ""


def _error(name: str, why: str, source: Source = MATRIX) -> RuleCard:
    return card(f"trt-{name}", "error", why, source)


RULES = (
    Rule(
        card=_error("opset", "The parser reads a range of opsets."),
        check=of_model(_opset),
        expected=f"opset {OPSETS[0]} to {OPSETS[-1]}",
        fix=f"export with --engine-option onnx.opset={OPSETS[-1]}",
    ),
    Rule(
        card=_error("operator", "The parser refuses operators that it has no importer for."),
        check=of_nodes(_operator),
        expected="an operator of the matrix",
        fix="spell it in operators that the parser takes",
    ),
    Rule(
        card=_error("topk-k", "The TopK layer stops at a fixed K.", _TOPK),
        check=of_nodes(_top_k, "TopK"),
        expected=f"K of at most {MOST_K}",
        fix="merge or keep fewer tokens per block, or use smaller images",
    ),
    Rule(
        card=_error("topk-sorted", "The TopK layer sorts, always."),
        check=of_nodes(lambda _, node: "" if attribute(node, "sorted", 1) == 1 else "sorted = 0", "TopK"),
        expected="sorted = 1",
        fix="ask for sorted results",
    ),
    Rule(
        card=_error("topk-axis", "The TopK layer works on one of the last four axes.", _TOPK),
        check=of_nodes(_top_k_axis, "TopK"),
        expected="one of the last four axes",
        fix="transpose or flatten the axes before it",
    ),
    Rule(
        card=_error("topk-type", "The TopK layer takes floats and 32 or 64 bit integers.", _TOPK),
        check=of_nodes(_top_k_type, "TopK"),
        expected=f"an input of {', '.join(SUPPORTED['TopK'])}",
        fix="cast it first",
    ),
    Rule(
        card=_error("scatternd-reduction", "ScatterND with a reduction has no layer."),
        check=of_nodes(lambda _, node: reducing(node), "ScatterND"),
        expected="no reduction",
        fix=ONE_HOT,
    ),
    Rule(
        card=card(
            "trt-scatter-plugin",
            "warning",
            "ScatterElements with a reduction is a plugin, which nothing fuses with.",
            _SCATTER_PLUGIN,
        ),
        check=of_nodes(lambda _, node: reducing(node, ", which a plugin runs"), "ScatterElements"),
        expected="no reduction",
        fix=ONE_HOT,
    ),
    Rule(
        card=_error("scatter-plugin-types", "That plugin takes few types.", _SCATTER_PLUGIN),
        check=of_nodes(_scatter_types, "ScatterElements"),
        expected="data that is not bf16 or int8, and int64 indices",
        fix=f"cast them, or {ONE_HOT}",
    ),
    Rule(
        card=card(
            "trt-scatter",
            "note",
            "Writes to one place by several sources have no defined order.",
            _ONNX_SCATTER,
        ),
        check=of_nodes(
            lambda _, node: "unchecked indices" if _reduction(node) == "none" else "",
            *_SCATTERS,
        ),
        expected="indices without duplicates",
        fix="make sure that none repeats: which one wins is not defined",
    ),
    Rule(
        card=_error("onehot-depth", "OneHot's depth shapes its output."),
        check=of_nodes(
            lambda facts, node: (
                "" if operand(node, 1) in facts.constants else "one that is computed from an input"
            ),
            "OneHot",
        ),
        expected="a depth that is known when the engine is built",
        fix="make the depth an initializer",
    ),
    Rule(
        card=_error("constant-axes", "Axes shape the output, and must be known."),
        check=of_nodes(_constant_axes, *_REDUCTIONS, "CumSum", "Squeeze", "Unsqueeze"),
        fix="fold them into an initializer",
    ),
    Rule(
        card=_error("layernorm-outputs", "Mean and deviation are not given out."),
        check=of_nodes(
            lambda _, node: f"{len(node.output)}" if any(node.output[1:]) else "", "LayerNormalization"
        ),
        expected="one output",
        fix="compute mean and deviation apart",
    ),
    Rule(
        card=_error("resize-antialias", "There is no antialiased resize."),
        check=of_nodes(lambda _, node: "antialias = 1" if attribute(node, "antialias", 0) else "", "Resize"),
        expected="no antialiasing",
        fix="resize where images are loaded, or fold a constant that is resized",
    ),
    Rule(
        card=_error("zero-point", "Quantisation is symmetric."),
        check=of_nodes(_zero_point, "QuantizeLinear", "DequantizeLinear"),
        expected="a zero point of 0",
        fix="quantise symmetrically: export for this target, or with --engine-option onnx.activations=int8",
    ),
    Rule(
        card=_error("dropout", "Engines do not train."),
        check=of_nodes(_dropout, "Dropout"),
        expected="training mode off",
        fix="export the model in evaluation mode",
    ),
)
