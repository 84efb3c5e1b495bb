"""TensorRT: shapes that are not known when the engine is built. Only the batch may be free, by a profile."""

import re
from collections.abc import Iterator

from exporter.lint.graph_facts import GraphFacts, Node, Shape, operand, shape_text
from exporter.lint.report import Source
from exporter.lint.rule import Rule, Verdict, card, of_nodes
from exporter.lint.trt_operators import SUPPORTED

_DYNAMIC = Source(
    title="TensorRT 11.3, Working with Dynamic Shapes",
    address="https://docs.nvidia.com/deeplearning/tensorrt/11.3.0/inference-library/work-with-dynamic-shapes.html",
)
_GLOSSARY = Source(
    title="TensorRT glossary, Data-Dependent Shape",
    address="https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/glossary.html",
)
_LOOPS = Source(
    title="TensorRT, Working with Loops; Working with Conditionals",
    address="https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-with-loops.html",
)

_DATA_DEPENDENT = ("Compress", "NonMaxSuppression", "NonZero", "Unique")

_SIZES = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
"""Inputs that say how large the result is."""


def _inputs(facts: GraphFacts) -> Iterator[tuple[str, str]]:
    for name in facts.inputs:
        shape = facts.shapes.get(name)
        if shape is None or not all(isinstance(size, int) for size in shape[1:]):
            yield name, shape_text(shape)


def _free_size(facts: GraphFacts, node: Node) -> Verdict:
    shapes = facts.shapes
    first = [shape[0] for name in facts.inputs if (shape := shapes.get(name))]
    batches = frozenset(size for size in first if isinstance(size, str))
    given = [name for name in node.input if name and name not in facts.weights]
    if not all(_is_settled(shapes.get(name), batches) for name in given):
        return ""
    free = (shapes.get(name) for name in node.output if name and not _is_settled(shapes.get(name), batches))
    return next(map(shape_text, free), "")


def _is_settled(shape: Shape | None, batches: frozenset[str]) -> bool:
    """Whether every size is a number or follows from the batch, such as `12*batch`."""
    return shape is not None and all(
        isinstance(size, int) or bool(size and batches.intersection(re.findall(r"\w+", size)))
        for size in shape
    )


def _data_dependent(facts: GraphFacts) -> Iterator[tuple[Node, str]]:
    for node in facts.of(*_DATA_DEPENDENT):
        yield node, "as many results as the data has"
    for node in facts.of(*_SIZES):
        named = [operand(node, index) for index in _SIZES[node.op_type]]
        if any(name and name not in facts.sizes for name in named):
            yield node, "a size that is computed from data"


RULES = (
    Rule(
        card=card(
            "trt-dynamic-input",
            "error",
            "Every free dimension needs a profile; this package makes one of the batch.",
            _DYNAMIC,
        ),
        check=_inputs,
        expected="numbers, but for the first axis",
        fix="export with a static image size",
    ),
    Rule(
        card=card(
            "trt-dynamic-shape",
            "warning",
            "What is not static is planned for its range, not its size.",
            _DYNAMIC,
        ),
        check=of_nodes(_free_size, *SUPPORTED),
        expected="a static shape, but for the batch",
        fix="compute it from constants",
    ),
    Rule(
        card=card(
            "trt-data-dependent", "warning", "Sizes that data decides are known at run time only.", _GLOSSARY
        ),
        check=_data_dependent,
        expected="a size that shapes decide",
        fix="use a fixed count, and a mask",
    ),
    Rule(
        card=card(
            "trt-control-flow", "warning", "Nothing is fused across the border of a loop or branch.", _LOOPS
        ),
        check=of_nodes(lambda *_: "control flow", "If", "Loop", "Scan"),
        expected="straight-line operators",
        fix="unroll it, or fold its condition",
    ),
)
