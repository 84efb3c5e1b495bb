"""Pass: merge tokens before an attention, and restore them after it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch import fx

from exporter.anatomy import Block, Layout
from exporter.anatomy.around import between, blocks_around
from exporter.graph import GraphPass, PassOutcome
from exporter.graph.nodes import operands, output_node
from exporter.reduction import Method, Site
from exporter.reduction.match import record_match
from exporter.reduction.plain_mean import merge_plainly
from exporter.reduction.unmerge import follow, restore
from exporter.rewrite.context import PassContext
from exporter.rewrite.generalize_token_shapes import generalize
from exporter.rewrite.role import Role


@dataclass(frozen=True, kw_only=True)
class InsertMergeAround(GraphPass):
    """Let attention run on merged tokens, and nothing else.

    Given: `x + attend(h)`, where `h (B, N, C)` is computed from the residual stream `x (B, N, C)`.
    Result: `x + restore(attend(merge(h, decide(x))))`: the attention has N - r tokens, every original token reads the
    result of the one that it is part of, and the stream keeps its N tokens. Each block's match becomes an extra output.

    It finds the blocks in the graph as it is now, since casts may have been inserted since they were planned.

    Attributes:
        sites: what merges in each block, None where nothing does.
        method: which tokens merge.
        options: of the method.
    """

    sites: tuple[Site | None, ...]
    method: Method
    options: Mapping[str, Any] = field(default_factory=dict)
    name: ClassVar[str] = "insert_merge_around"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """As planned; None where no token merges, or none comes back."""
        if not context.schedule.around or not any(context.sites):
            return None
        method = context.options.method
        return cls(
            sites=context.sites,
            method=method,
            options=method.chosen(context.options.method_options),
        )

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Rewrite every block that merges."""
        graph = graph_module.graph
        layouts, blocks = blocks_around(graph)
        records = [
            self._merge(index, block, site, layouts)
            for index, (block, site) in enumerate(zip(blocks, self.sites, strict=True))
            if site is not None
        ]
        output = output_node(graph)
        output.args = ((*operands(output), *records),)
        return PassOutcome(name=self.name, rewrites=len(records))

    def _merge(self, index: int, block: Block, site: Site, layouts: Mapping[fx.Node, Layout]) -> fx.Node:
        entry, end, graph = block.merge_point, block.end, block.attention.graph
        assert end is not None and block.grid is not None
        targets = site.tokens - self.method.grid_cap(block.grid, **self.options)
        inside = between(entry, end)
        for node in inside:
            generalize(node, layouts)
        (join,) = end.users
        with graph.inserting_before(inside[0]):
            match = graph.call_function(self.method.decide, (block.start,), {"at": site, **self.options})
            merged = graph.call_function(merge_plainly, (entry, match), {"targets": targets})
            match.meta["role"], merged.meta["role"] = Role("match", index), Role("merge", index)
            record = graph.call_function(record_match, (match,))
            where = graph.call_function(follow, (None, match))
        for node in inside:
            node.replace_input_with(entry, merged)
        with graph.inserting_after(end):
            whole = graph.call_function(restore, (end, where), {"axis": 1, "prefix_change": 0})
        join.replace_input_with(end, whole)
        return record
