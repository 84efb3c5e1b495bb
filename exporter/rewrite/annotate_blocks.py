"""Passes: write into each node which block of the model it belongs to.

Engines and profilers name nodes, not blocks. The annotation is in `meta["custom"]`, which `torch.export` keeps through
a second capture, so that it reaches the names of an engine's nodes.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import fx

from exporter.anatomy import Anatomy, examine
from exporter.anatomy.layout import axis_text
from exporter.graph import GraphPass, PassOutcome
from exporter.rewrite.context import PassContext
from exporter.rewrite.role import Role

STEM = "stem"
HEAD = "head"
KEY = "block"
AXIS_KEY = "tokens"


@dataclass(frozen=True, kw_only=True)
class AnnotateBlocks(GraphPass):
    """Examine the graph, and annotate every node: `stem`, `block_00` and so on, or `head`, and where its tokens are.

    A block begins after the last value before its attention through which everything passes; the last block ends with
    the second such value after its attention.

    Attributes:
        context: `anatomy` is written.
    """

    context: PassContext
    name: ClassVar[str] = "annotate_blocks"
    only_notes: ClassVar[bool] = True

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None for a tower that is exported without merging."""
        return cls(context=context) if context.schedule.merged else None

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Annotate.

        Raises:
            UnsupportedGraphError: there is no attention over a token axis, or blocks without a merge point.
        """
        anatomy = self.context.anatomy = examine(graph_module, self.context.options.method.place)
        for node, label in _labels(graph_module.graph, anatomy).items():
            node.meta["custom"] = {KEY: label, AXIS_KEY: axis_text(anatomy.layouts.get(node))}
        for index, block in enumerate(anatomy.blocks):
            block.merge_point.meta["role"] = Role("point", index)
        return PassOutcome(name=self.name, rewrites=0)


@dataclass(frozen=True)
class SpreadAnnotation(GraphPass):
    """Give each node that a pass inserted later the annotation of the node before it."""

    name: ClassVar[str] = "spread_annotation"
    only_notes: ClassVar[bool] = True

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None where nothing is annotated."""
        return None if context.anatomy is None else cls()

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Walk the graph once."""
        label = STEM
        for node in graph_module.graph.nodes:
            label = node.meta.setdefault("custom", {}).setdefault(KEY, label)
        return PassOutcome(name=self.name, rewrites=0)


def block_label(block: int) -> str:
    """The annotation of a block."""
    return f"block_{block:02}"


def part_name(label: str) -> str:
    """An annotation in the words of a message."""
    names = {STEM: "the layers before block 0", HEAD: "its last layers"}
    return names.get(label) or f"block {int(label.rpartition('_')[2])}"


def annotations(graph: fx.Graph, key: str = KEY) -> dict[str, str]:
    """Annotation by node name; empty for a graph that has none."""
    return {node.name: node.meta["custom"][key] for node in graph.nodes if key in node.meta.get("custom", {})}


def _labels(graph: fx.Graph, anatomy: Anatomy) -> dict[fx.Node, str]:
    order = {node: position for position, node in enumerate(graph.nodes)}
    starts = [-1 if block.start is None else order[block.start] for block in anatomy.blocks]
    last = anatomy.blocks[-1].end
    end = len(order) if last is None else order[last]
    labels = {}
    for node, position in order.items():
        begun = sum(position > start for start in starts)
        labels[node] = HEAD if position > end else block_label(begun - 1) if begun else STEM
    return labels
