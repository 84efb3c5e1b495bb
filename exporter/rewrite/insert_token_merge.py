"""Pass: merge tokens at the merge point of every scheduled block."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from torch import fx

from exporter.anatomy import Anatomy, Block, Layout, TokenAxis
from exporter.anatomy.token_axis import trace_tokens
from exporter.forms import Forms
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import operand, operands, output_node, scale_of, shape_of
from exporter.graph.operators import aten, sdpa
from exporter.reduction import Method
from exporter.reduction.merge import (
    expanded_log_size_bias,
    fold_log_size,
    initial_sizes,
    key_metric,
    log_size_bias,
    merge,
    record_match,
    weighted_mean,
)
from exporter.rewrite.context import PassContext
from exporter.rewrite.generalize_token_shapes import GeneralizeTokenShapes


@dataclass(frozen=True, kw_only=True)
class InsertTokenMerge(GraphPass):
    """Insert the reduction: the last pass, since tokens have no static count behind it.

    Given: the value x (B, N, C) after a block's attention, and that attention's keys.
    Result: everything behind reads `merge(x, sizes, match(keys))`; later attention over the tokens adds log(size),
    later means over them weigh by size. Each block's match becomes an extra output.

    Attributes:
        anatomy: of the graph that this pass runs on; a block without merges is left alone.
        merged: tokens to merge per block, 0 where nothing behind reads the difference.
        method: who merges with whom.
        options: of the method.
        proportional: whether attention adds log(size).
        forms: how log(size) and the merge are spelled; the numbers are the same.
    """

    anatomy: Anatomy
    merged: tuple[int, ...]
    method: Method
    options: Mapping[str, float] = field(default_factory=dict)
    proportional: bool = True
    forms: Forms = field(default_factory=Forms)
    name: ClassVar[str] = "insert_token_merge"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """As planned; None where no block merges."""
        asked = context.options
        if context.anatomy is None or not any(context.merged):
            return None
        return cls(
            anatomy=context.anatomy,
            merged=context.merged,
            method=asked.method,
            options=asked.method.options(asked.method_options),
            proportional=asked.proportional,
            forms=asked.forms,
        )

    def requires(self, graph_module: fx.GraphModule) -> str | None:
        """Shapes follow the tokens."""
        return GeneralizeTokenShapes().ensures(graph_module)

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Walk the graph once, carrying the node that holds the current sizes."""
        graph = graph_module.graph
        layouts = trace_tokens(graph)
        merging = {
            block.merge_point: (index, block, operand(block.attention, 1))
            for index, (block, r) in enumerate(zip(self.anatomy.blocks, self.merged, strict=True))
            if r
        }
        sizes: fx.Node | None = None
        records: list[fx.Node] = []
        for node in list(graph.nodes):
            if sizes is not None and node.target is sdpa:
                self._weigh_keys(node, layouts, sizes)
            elif sizes is not None and node in self.anatomy.pooling:
                self._weigh_mean(graph, node, layouts, sizes)
            if node in merging:
                sizes, record = self._merge(graph, *merging[node], sizes)
                records.append(record)
        output = output_node(graph)
        output.args = ((*operands(output), *records),)
        return PassOutcome(name=self.name, rewrites=len(merging))

    def _merge(
        self, graph: fx.Graph, index: int, block: Block, keys: fx.Node, sizes: fx.Node | None
    ) -> tuple[fx.Node, fx.Node]:
        point = block.merge_point
        layout = self.anatomy.layouts[point]
        assert isinstance(layout, TokenAxis)
        readers = list(point.users)
        with graph.inserting_before(point.next):
            tokens = graph.call_function(aten.transpose.int, (point, 0, 1)) if layout.axis == 0 else point
            current = sizes or graph.call_function(initial_sizes, (tokens,))
            metric = graph.call_function(key_metric, (keys, tokens))
            match = graph.call_function(
                self.method.match,
                (metric,),
                {
                    "r": self.merged[index],
                    "prefix": layout.prefix,
                    "depth": index / len(self.anatomy.blocks),
                    **self.options,
                },
            )
            both = graph.call_function(merge, (tokens, current, match), {"selection": self.forms.selection})
            merged = graph.call_function(operator.getitem, (both, 0))
            merged_sizes = graph.call_function(operator.getitem, (both, 1))
            record = graph.call_function(record_match, (match,))
            result = graph.call_function(aten.transpose.int, (merged, 0, 1)) if layout.axis == 0 else merged
        for reader in readers:
            reader.replace_input_with(point, result)
        return merged_sizes, record

    def _weigh_keys(self, attention: fx.Node, layouts: Mapping[fx.Node, Layout], sizes: fx.Node) -> None:
        keys = layouts.get(operand(attention, 1))
        if not self.proportional or not isinstance(keys, TokenAxis):
            return
        change = keys.prefix - self.anatomy.prefix
        if self.forms.mask == "folded":
            _fold_log_size(attention, sizes, change)
            return
        spelled = log_size_bias if self.forms.mask == "bias" else expanded_log_size_bias
        with attention.graph.inserting_before(attention):
            bias = attention.graph.call_function(spelled, (sizes, attention.args[0], change))
        attention.kwargs = {**attention.kwargs, "attn_mask": bias}

    def _weigh_mean(
        self, graph: fx.Graph, mean: fx.Node, layouts: Mapping[fx.Node, Layout], sizes: fx.Node
    ) -> None:
        values = operand(mean, 0)
        layout = layouts[values]
        assert isinstance(layout, TokenAxis)
        keepdim = bool(mean.args[2]) if len(mean.args) > 2 else bool(mean.kwargs.get("keepdim", False))
        with graph.inserting_before(mean):
            weighted = graph.call_function(
                weighted_mean, (values, sizes, layout.prefix - self.anatomy.prefix, layout.axis, keepdim)
            )
        mean.replace_all_uses_with(weighted)


def _fold_log_size(attention: fx.Node, sizes: fx.Node, prefix_change: int) -> None:
    graph, scale = attention.graph, scale_of(attention)
    width = shape_of(operand(attention, 2))[-1]
    readers = list(attention.users)
    with graph.inserting_before(attention):
        folded = graph.call_function(fold_log_size, (*attention.args[:3], sizes, prefix_change, scale))
        padded = [graph.call_function(operator.getitem, (folded, place)) for place in range(3)]
    attention.args, attention.kwargs = tuple(padded), {**attention.kwargs, "scale": scale}
    with graph.inserting_after(attention):
        result = graph.call_function(aten.slice.Tensor, (attention, -1, 0, width))
    for reader in readers:
        reader.replace_input_with(attention, result)
