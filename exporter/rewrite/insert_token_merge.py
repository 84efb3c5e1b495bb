"""Pass: reduce the tokens of every scheduled block."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeVar

from torch import Tensor, fx

from exporter.anatomy import Anatomy, Block, Layout, TokenAxis
from exporter.anatomy.depths import Depths, leading_to, token_depths
from exporter.anatomy.examine import find_obstacles
from exporter.anatomy.padding import parts_of_mask
from exporter.anatomy.tables import tables
from exporter.anatomy.token_axis import trace_tokens
from exporter.errors import UnsupportedGraphError
from exporter.forms import Forms
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import (
    add_parameter,
    operand,
    operands,
    output_node,
    scale_of,
    shape_of,
)
from exporter.graph.operators import aten, sdpa
from exporter.reduction import Method, Site
from exporter.reduction.match import record_match
from exporter.reduction.signals import class_row, split_heads
from exporter.reduction.sizes import initial_sizes, presence, sizes_of_texts, weighted_mean
from exporter.reduction.unmerge import follow, restore
from exporter.rewrite.context import PassContext
from exporter.rewrite.generalize_token_shapes import GeneralizeTokenShapes
from exporter.rewrite.read_tables import Standing, TableReader
from exporter.rewrite.redundancy_output import insert_redundancy
from exporter.rewrite.role import Role

Place = TypeVar("Place", fx.Node, Standing)


@dataclass(frozen=True, kw_only=True)
class InsertTokenMerge(GraphPass):
    """Insert the reduction: the last pass, since token counts are not static after it.

    Given: the value x (B, N, C) that a block's tokens flow through, and what the method reads of the block.
    Result: everything after it reads `merge(x, sizes, decide(signals))`; later attention over the tokens adds
    log(size), later means over them weigh by size, and tables with an entry per token are read where the tokens stand
    that are left. Padding has size 0 from the start, and attention that adds log(size) needs no mask over it. What
    needs one entry per original token (B, T, C), or values of several depths, reads `restore(x, where)`. Each block's
    match becomes an extra output, the redundancy one before them.

    Attributes:
        anatomy: of the graph that this pass runs on.
        sites: what leaves each block, None where nothing does.
        method: which tokens leave, and how they are combined.
        options: of the method.
        proportional: whether attention adds log(size).
        dense_outputs: whether values with one entry per original token are restored; otherwise nothing needs any.
        redundancy: whether the program gives it.
        learned: tensors of the method, by block.
        forms: of attention with sizes and of the merge; the numbers are the same.
    """

    anatomy: Anatomy
    sites: tuple[Site | None, ...]
    method: Method
    options: Mapping[str, Any] = field(default_factory=dict)
    proportional: bool = True
    dense_outputs: bool = False
    redundancy: bool = False
    learned: Mapping[int, tuple[Tensor, ...]] = field(default_factory=dict, repr=False, compare=False)
    forms: Forms = field(default_factory=Forms)
    name: ClassVar[str] = "insert_token_merge"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """As planned; None where no token leaves, or all come back after the attention."""
        asked = context.options
        if context.anatomy is None or not any(context.sites) or context.schedule.around:
            return None
        is_padded = context.anatomy.padding.mask is not None
        return cls(
            anatomy=context.anatomy,
            sites=context.sites,
            method=asked.method.with_padding() if is_padded else asked.method,
            options={
                **asked.method.chosen(asked.method_options),
                **({"padded": True} if is_padded else {}),
            },
            proportional=asked.proportional,
            dense_outputs=asked.dense_outputs,
            redundancy=asked.redundancy,
            learned=asked.learned,
            forms=asked.forms,
        )

    def requires(self, graph_module: fx.GraphModule) -> str | None:
        """Shapes follow the tokens."""
        return GeneralizeTokenShapes().ensures(graph_module)

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Walk the graph once, carrying the node that holds the current sizes.

        Raises:
            UnsupportedGraphError: the method reads what the model does not have.
        """
        graph = graph_module.graph
        layouts = trace_tokens(graph)
        reductions = {
            block.merge_point: self._reduction(index, block, site)
            for index, (block, site) in enumerate(zip(self.anatomy.blocks, self.sites, strict=True))
            if site is not None
        }
        points = {block.attention: block.merge_point for block in self.anatomy.blocks}
        padding = self.anatomy.padding
        means = {mean.result: mean.values for mean in padding.means}
        reader = TableReader.of(graph_module, layouts, self.anatomy.prefix)
        depths = self._depths(graph, layouts, list(reductions))
        levels: list[_Level] = []
        replaced: dict[fx.Node, fx.Node] = {}
        for node in list(graph.nodes):
            depth = depths.reads.get(node, 0)
            if depth > 0 and any(tables(node, layouts)):
                reader.read(node, layouts, self._own_place(node, levels[depth - 1].standing))
            if (point := points.get(node)) in reductions:
                reductions[point] = replace(reductions[point], bias=self._bias(node))
            if depth > 0 and node.target is sdpa:
                replaced[node] = self._weigh_keys(node, layouts, levels[depth - 1].sizes)
            elif depth > 0 and node in self.anatomy.pooling:
                self._weigh_mean(node, operand(node, 0), layouts, levels[depth - 1].sizes)
            elif node in means and (depth := depths.values[means[node]]) > 0:
                values = means[node]
                layouts.setdefault(replaced.get(values, values), layouts[values])
                self._weigh_mean(node, replaced.get(values, values), layouts, levels[depth - 1].sizes)
            for source in depths.restoring.get(node, ()):
                where = self._own_place(node, levels[depths.values[source] - 1].where)
                self._restore(node, replaced.get(source, source), layouts[source], where)
            if node in reductions:
                reduce = self._reduce if self.method.decides else self._transform
                levels.append(reduce(node, reductions[node], levels[-1] if levels else None))
                replaced[node] = levels[-1].tokens
        output, records = output_node(graph), (level.record for level in levels if level.record)
        given = (insert_redundancy(graph, self.method),) if self.redundancy else ()
        output.args = ((*operands(output), *given, *records),)
        return PassOutcome(name=self.name, rewrites=len(reductions))

    def _depths(self, graph: fx.Graph, layouts: Mapping[fx.Node, Layout], points: list[fx.Node]) -> Depths:
        """Reductions before every value, and what is restored; whatever else is in the way was refused.

        A head reads its own tables with all tokens: those that merged get the entries of their own places.
        """
        if not self.dense_outputs:
            return token_depths(graph, layouts, points, ())
        settled = leading_to([*(block.attention for block in self.anatomy.blocks), *points])
        reading = {node for node in graph.nodes if any(tables(node, layouts))}
        obstructed = reading | find_obstacles(graph, layouts, self.anatomy.padding).keys()
        return token_depths(graph, layouts, points, obstructed - settled)

    def _reduction(self, index: int, block: Block, site: Site) -> "_Reduction":
        if "class_row" in self.method.reads and not site.prefix:
            raise UnsupportedGraphError(
                f"model: method {self.method.name} reads the class token's attention, and this model has no class "
                "token; choose another method"
            )
        mask = self._bias(block.attention)
        adds = mask is None or (mask.meta["val"].is_floating_point() and len(shape_of(block.attention)) == 4)
        if "class_row" in self.method.reads and not adds:
            raise UnsupportedGraphError(
                f"model: method {self.method.name} reads the class token's attention, and node {block.attention.name} "
                "has a mask that is not added to (B, H, N, N) logits; choose another method"
            )
        queries, keys, values = (operand(block.attention, position) for position in range(3))
        return _Reduction(
            block=index, site=site, queries=queries, keys=keys, values=values, scale=scale_of(block.attention)
        )

    def _bias(self, attention: fx.Node) -> fx.Node | None:
        """What an attention adds to its logits, apart from the mask over padding, which sizes stand for."""
        mask, bias = parts_of_mask(attention)
        return bias if mask is self.anatomy.padding.mask else mask

    def _reduce(self, point: fx.Node, reduction: "_Reduction", before: "_Level | None") -> "_Level":
        graph, method, block = point.graph, self.method, reduction.block
        layout = self.anatomy.layouts[point]
        assert isinstance(layout, TokenAxis)
        readers = list(point.users)
        with graph.inserting_before(point.next):
            tokens = graph.call_function(aten.transpose.int, (point, 0, 1)) if layout.axis == 0 else point
            current = before.sizes if before else self._first_sizes(tokens)
            weighed = self._weights(graph, current) if before or self.anatomy.padding.mask else None
            signals = tuple(
                reduction.signal(name, tokens, current, weighed, method.absent) for name in method.reads
            ) + self._parameters(point, block)
            match = graph.call_function(
                method.decision(self.forms.merge), signals, {"at": reduction.site, **self.options}
            )
            both = graph.call_function(*self._merge((tokens, current, match), signals))
            match.meta["role"], both.meta["role"] = Role("match", block), Role("merge", block)
            merged = graph.call_function(operator.getitem, (both, 0))
            sizes = graph.call_function(operator.getitem, (both, 1))
            record = graph.call_function(record_match, (match,))
            where = graph.call_function(follow, (before.where if before else None, match))
            standing = Standing.after(
                match, current, before.standing if before else None, absent=method.absent
            )
            result = graph.call_function(aten.transpose.int, (merged, 0, 1)) if layout.axis == 0 else merged
        for reader in readers:
            reader.replace_input_with(point, result)
        return _Level(tokens=result, sizes=sizes, where=where, standing=standing, record=record)

    def _first_sizes(self, tokens: fx.Node) -> fx.Node:
        """Every token stands for itself, and padding for nothing."""
        mask = self.anatomy.padding.mask
        if mask is None:
            return tokens.graph.call_function(initial_sizes, (tokens,))
        return tokens.graph.call_function(sizes_of_texts, (mask,))

    def _own_place(self, reader: fx.Node, place: Place | None) -> Place:
        """Where every token is, or was; refused where each token is a mixture of all."""
        if place is None:
            raise UnsupportedGraphError(
                f"model: method {self.method.name} mixes all patches, so that none has a place of its own, which node "
                f"{reader.name} reads; choose another method"
            )
        return place

    def _restore(self, reader: fx.Node, source: fx.Node, layout: Layout, where: fx.Node) -> None:
        """Let a node read a value with one entry per original token."""
        assert isinstance(layout, TokenAxis)
        change = layout.prefix - self.anatomy.prefix
        with reader.graph.inserting_before(reader):
            whole = reader.graph.call_function(
                restore, (source, where), {"axis": layout.axis, "prefix_change": change}
            )
        reader.replace_input_with(source, whole)

    def _transform(self, point: fx.Node, reduction: "_Reduction", before: "_Level | None") -> "_Level":
        """Reduce the tokens of every image alike, without a decision; none of them has a position from then on."""
        graph, layout = point.graph, self.anatomy.layouts[point]
        assert isinstance(layout, TokenAxis)
        readers = list(point.users)
        with graph.inserting_before(point.next):
            tokens = graph.call_function(aten.transpose.int, (point, 0, 1)) if layout.axis == 0 else point
            current = before.sizes if before else self._first_sizes(tokens)
            assert self.method.combine is not None
            both = graph.call_function(
                self.method.combine, (tokens, current), {"at": reduction.site, **self.options}
            )
            both.meta["role"] = Role("merge", reduction.block)
            fewer = graph.call_function(operator.getitem, (both, 0))
            fewer_sizes = graph.call_function(operator.getitem, (both, 1))
            result = graph.call_function(aten.transpose.int, (fewer, 0, 1)) if layout.axis == 0 else fewer
        for reader in readers:
            reader.replace_input_with(point, result)
        return _Level(tokens=result, sizes=fewer_sizes, where=None, standing=None, record=None)

    def _parameters(self, point: fx.Node, block: int) -> tuple[fx.Node, ...]:
        """The learned tensors of a block's reduction."""
        graph_module = point.graph.owning_module
        assert graph_module is not None
        return tuple(
            add_parameter(graph_module, point.next, f"learned_{block}_{index}", tensor)
            for index, tensor in enumerate(self.learned.get(block, ()))
        )

    def _merge(
        self, arguments: tuple[fx.Node, ...], signals: tuple[fx.Node, ...]
    ) -> tuple[Callable[..., Any], tuple[fx.Node, ...], dict[str, Any]]:
        """Function, arguments and keywords of the call that combines the tokens."""
        if self.method.combine is None:
            return self.forms.function("selection"), arguments, {"absent": self.method.absent}
        form = "kernel" if self.forms.merge == "kernels" else self.forms.selection
        return self.method.combine, (*arguments, *signals), {"form": form, **self.options}

    def _weigh_keys(self, attention: fx.Node, layouts: dict[fx.Node, Layout], sizes: fx.Node) -> fx.Node:
        """Let attention over tokens count every key as often as it has originals; return what stands in its place."""
        keys = layouts.get(operand(attention, 1))
        if not isinstance(keys, TokenAxis):
            return attention
        change = keys.prefix - self.anatomy.prefix
        given = dict(attention.kwargs)
        if self.anatomy.padding.mask is not None:
            given["attn_mask"] = parts_of_mask(attention)[1]
        with attention.graph.inserting_before(attention):
            weights = self._weights(attention.graph, sizes)
            if weights is None:
                return attention
            weighed = attention.graph.call_function(
                self.forms.function("mask"),
                (*attention.args[:3], weights),
                {"prefix_change": change, "absent": self.method.absent, **given},
            )
        _replace(attention, weighed, layouts)
        return weighed

    def _weights(self, graph: fx.Graph, sizes: fx.Node) -> fx.Node | None:
        """How often attention counts every token; None where it counts each of them once."""
        if self.proportional:
            return sizes
        return graph.call_function(presence, (sizes,)) if self.method.absent else None

    def _weigh_mean(
        self, mean: fx.Node, values: fx.Node, layouts: dict[fx.Node, Layout], sizes: fx.Node
    ) -> None:
        layout = layouts[values]
        assert isinstance(layout, TokenAxis)
        keepdim = len(shape_of(mean)) == len(shape_of(values))
        change = layout.prefix - self.anatomy.prefix
        with mean.graph.inserting_before(mean):
            weighted = mean.graph.call_function(weighted_mean, (values, sizes, change, layout.axis, keepdim))
        _replace(mean, weighted, layouts)


@dataclass(frozen=True, kw_only=True)
class _Level:
    """What a reduction leaves, and what goes along with the tokens from there on.

    Attributes:
        tokens: that stand in place of those that were reduced.
        sizes: how many original tokens each one stands for.
        where: each original token is among them; None, as the next two, where each is a mixture of all.
        standing: where each of them stands in tables of positions.
        record: of the match.
    """

    tokens: fx.Node
    sizes: fx.Node
    where: fx.Node | None
    standing: Standing | None
    record: fx.Node | None


@dataclass(frozen=True, kw_only=True)
class _Reduction:
    """The reduction of one block, and what its method may read of the block's attention.

    Attributes:
        bias: of positions, as this attention adds it; None where it adds none.
    """

    block: int
    site: Site
    queries: fx.Node
    keys: fx.Node
    values: fx.Node
    scale: float
    bias: fx.Node | None = None

    def signal(
        self, name: str, tokens: fx.Node, sizes: fx.Node, weighed: fx.Node | None, absent: bool
    ) -> fx.Node:
        """Insert what a method reads; `weighed` are the sizes that attention added the logarithm of."""
        graph = tokens.graph
        match name:
            case "tokens":
                return tokens
            case "sizes":
                return sizes
            case "class_row":
                heads = [self._heads(rows, tokens) for rows in (self.queries, self.keys)]
                return graph.call_function(
                    class_row, (*heads, weighed, self.bias), {"scale": self.scale, "absent": absent}
                )
            case _:
                return self._heads(self.keys if name == "mean_keys" else getattr(self, name), tokens)

    def _heads(self, rows: fx.Node, tokens: fx.Node) -> fx.Node:
        """Queries, keys or values as (B, H, N, D)."""
        if len(shape_of(rows)) == 4:
            return rows
        return tokens.graph.call_function(split_heads, (rows, tokens))


def _replace(node: fx.Node, other: fx.Node, layouts: dict[fx.Node, Layout]) -> None:
    """Put another node in a node's place."""
    other.meta = dict(node.meta)
    if node in layouts:
        layouts[other] = layouts[node]
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)
