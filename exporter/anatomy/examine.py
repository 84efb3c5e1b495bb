"""Anatomy: read-only facts about a captured model, found without knowing which model it is.

In: a captured graph. Out: an `Anatomy`: attention blocks, merge points, prefix tokens, the head, and everything
that stands in the way of merging, by name.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from exporter.anatomy.around import blocks_around, work_around
from exporter.anatomy.block import Block, heads_of, is_stream
from exporter.anatomy.demand import token_demand
from exporter.anatomy.depths import Depths, is_restorable, leading_to, token_depths
from exporter.anatomy.layout import Layout, PatchGrid, Scrambled, TokenAxis
from exporter.anatomy.merge_points import block_cuts
from exporter.anatomy.padding import Padding, find_padding, parts_of_mask
from exporter.anatomy.tables import tables
from exporter.anatomy.token_axis import token_inputs, trace_tokens
from exporter.anatomy.token_rules import reduced_axes
from exporter.anatomy.work import growing_macs, workload
from exporter.errors import UnsupportedGraphError
from exporter.graph.nodes import calls, input_nodes, operand, shape_of
from exporter.graph.operators import Trait, aten, has, sdpa
from exporter.schedule import Geometry, Place, Workload

_JOINS = "it joins tokens of several depths, of which not as many are left"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Something that cannot follow a merge of `block` or any earlier one.

    Attributes:
        node: which one.
        reason: why.
        block: the last one whose merge it cannot follow.
        restorable: whether it can, where every original token gets an entry again just before the node.
        at_output: whether the node is the output itself, which can have fewer tokens where that is asked for.
    """

    node: str
    reason: str
    block: int
    restorable: bool = False
    at_output: bool = False

    def stands(self, *, dense_outputs: bool, reduced_outputs: bool) -> bool:
        """Whether it stands in the way, with the outputs that are asked for."""
        return not ((dense_outputs and self.restorable) or (reduced_outputs and self.at_output))


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What is known of a captured graph.

    Attributes:
        layouts: where the tokens are in every image-dependent value.
        blocks: attention blocks in order; empty for a graph without attention over image tokens.
        prefix: first tokens that come from no patch and never merge.
        tokens: tokens that enter the first block.
        grid: rows and columns of the patches among them; None where they are cut without a convolution.
        pooling: mean nodes over the token axis, which become size-weighted.
        attention_pooling: attention nodes whose keys are the tokens and whose queries are not.
        padding: which tokens of a text are there, and the means over them, which become size-weighted.
        refusals: what cannot follow a merge.
        workload: multiply-accumulates by segment.
        head: how the tokens become the result, in words.
    """

    layouts: Mapping[fx.Node, Layout]
    blocks: tuple[Block, ...]
    prefix: int
    tokens: int
    grid: tuple[int, int] | None
    pooling: tuple[fx.Node, ...]
    attention_pooling: tuple[fx.Node, ...]
    padding: Padding
    refusals: tuple[Refusal, ...]
    workload: Workload
    head: str

    @property
    def geometry(self) -> Geometry:
        """What a schedule has to know."""
        return Geometry(
            tokens=self.tokens,
            protected=self.prefix,
            blocks=len(self.blocks),
            grids=tuple(block.grid for block in self.blocks if block.grid is not None),
            workload=self.workload,
        )

    def check_mergeable(
        self, merged: Sequence[int], *, dense_outputs: bool = False, reduced_outputs: bool = False
    ) -> None:
        """Raise unless these merges leave everything in the graph well-defined.

        Args:
            merged: one count per block.
            dense_outputs: whether every original token gets an entry again where one is needed.
            reduced_outputs: whether the outputs may have the tokens that are left.

        Raises:
            UnsupportedGraphError: a refusal lies at or after the first block that merges.
        """
        merging = [block for block, r in enumerate(merged) if r]
        if not merging:
            return
        standing = [
            refusal
            for refusal in self.refusals
            if refusal.block >= merging[0]
            and refusal.stands(dense_outputs=dense_outputs, reduced_outputs=reduced_outputs)
        ]
        if standing:
            first = standing[0]
            more = f" (and {len(standing) - 1} more)" if len(standing) > 1 else ""
            dense = ", or --outputs dense, which gives every token an entry again there"
            reduced = ", or --outputs reduced, which gives the tokens that are left to another model that reads them"
            raise UnsupportedGraphError(
                f"model: cannot merge tokens because of node {first.node}: {first.reason}{more}; "
                "use --r 0 for the dense model"
                + (dense if all(refusal.restorable for refusal in standing) else "")
                + (reduced if all(refusal.at_output for refusal in standing) else "")
            )


def examine(graph_module: fx.GraphModule, place: Place = "after-attention") -> Anatomy:
    """Find the blocks of a captured graph, and where tokens can leave them.

    Args:
        graph_module: captured.
        place: of the merge points.

    Raises:
        UnsupportedGraphError: there is no attention over a token axis, or blocks without a merge point.
    """
    graph = graph_module.graph
    if place == "around-attention":
        return _examine_around(graph)
    layouts = trace_tokens(graph)
    sites = [node for node in calls(graph, sdpa) if _is_self_attention(node, layouts)]
    if not sites:
        raise UnsupportedGraphError(f"model: {_why_no_attention(graph, layouts)}{_instead(graph)}")
    blocks = _blocks(graph, layouts, sites, place)
    points = [block.merge_point for block in blocks]
    padding = find_padding(graph_module, layouts, sites)
    obstacles = find_obstacles(graph, layouts, padding)
    settled = leading_to([*sites, *points])
    depths = token_depths(graph, layouts, points, obstacles.keys() - settled)
    first = _tokens_of_all(sites, layouts)
    pools = tuple(node for node in calls(graph, aten.mean.dim) if _is_mean_of_tokens(node, layouts))
    attention_pools = tuple(node for node in calls(graph, sdpa) if _is_pooling(node, layouts))
    return Anatomy(
        layouts=layouts,
        blocks=blocks,
        prefix=first.prefix,
        tokens=first.tokens,
        grid=_grid(layouts, first.tokens - first.prefix),
        pooling=pools,
        attention_pooling=attention_pools,
        padding=padding,
        refusals=_refusals(obstacles, layouts, depths, settled),
        workload=workload(graph, layouts, depths, len(blocks)),
        head=_head(graph, layouts, points[-1], (*pools, *padding.means), attention_pools),
    )


def _examine_around(graph: fx.Graph) -> Anatomy:
    layouts, blocks = blocks_around(graph)
    if not blocks:
        raise UnsupportedGraphError(
            "model: no residual self-attention whose tokens are the cells of a feature map; for a Vision Transformer "
            "choose another method, such as --method tome"
        )
    return Anatomy(
        layouts=layouts,
        blocks=blocks,
        prefix=0,
        tokens=shape_of(blocks[0].merge_point)[1],
        grid=None,
        pooling=(),
        attention_pooling=(),
        padding=Padding(),
        refusals=(),
        workload=work_around(graph, blocks),
        head="a feature map",
    )


def _instead(graph: fx.Graph) -> str:
    """What to do about a diffusion model, which takes more than images; nothing for any other."""
    if len(input_nodes(graph)) == 1 or not blocks_around(graph)[1]:
        return ""
    return "; choose --method tomesd, which merges around each attention"


def _tokens_of_all(sites: Sequence[fx.Node], layouts: Mapping[fx.Node, Layout]) -> TokenAxis:
    first, *others = (layouts[operand(site, 0)] for site in sites)
    assert isinstance(first, TokenAxis)
    for site, other in zip(sites[1:], others, strict=True):
        if other != first:
            raise UnsupportedGraphError(
                f"model: at {site.name} other tokens attend to each other than in the first block; expected the same "
                "prefix tokens and patches in all blocks"
            )
    return first


def _grid(layouts: Mapping[fx.Node, Layout], patches: int) -> tuple[int, int] | None:
    """Rows and columns of the patch grid with this number of patches."""
    grids = [layout for layout in layouts.values() if isinstance(layout, PatchGrid)]
    fitting = [(grid.rows, grid.columns) for grid in grids if grid.rows * grid.columns == patches]
    return fitting[0] if fitting else None


def _is_self_attention(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    query, key = layouts.get(operand(node, 0)), layouts.get(operand(node, 1))
    return isinstance(layouts.get(node), TokenAxis) and query == key


def _is_pooling(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    key = layouts.get(operand(node, 1))
    return isinstance(key, TokenAxis) and layouts.get(operand(node, 0)) is None


def _reduces_tokens(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    source = layouts.get(operand(node, 0))
    return isinstance(source, TokenAxis) and source.axis in reduced_axes(node)


def _is_mean_of_tokens(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    """Whether a node is a mean over the tokens of a (B, N, C) or (N, B, C) value, and over nothing else."""
    if node.target is not aten.mean.dim or not _reduces_tokens(node, layouts):
        return False
    return len(reduced_axes(node)) == 1 and is_stream(operand(node, 0), layouts)


def _blocks(
    graph: fx.Graph, layouts: Mapping[fx.Node, Layout], sites: Sequence[fx.Node], place: Place
) -> tuple[Block, ...]:
    nodes = list(graph.nodes)
    order = {node: position for position, node in enumerate(nodes)}
    demand = token_demand(graph, layouts)
    candidates = block_cuts(graph, layouts, sites)
    blocks = []
    for index, site in enumerate(sites):
        limit = order[sites[index + 1]] if index + 1 < len(sites) else len(order)
        start = next((node for node in reversed(candidates) if order[node] < order[site]), None)
        between = [node for node in candidates if order[site] < order[node] < limit]
        after: list[fx.Node | None] = [*_after_norms(between), None, None]
        middle, end, *_ = after
        point = {"block-start": start, "after-attention": middle, "block-end": end}[place]
        if point is None or not is_stream(point, layouts):
            where = "before" if place == "block-start" else "after"
            raise UnsupportedGraphError(
                f"model: no merge point {where} attention {site.name} (block {index}): no single (B, N, C) value "
                "carries the whole image before the next attention (parallel attentions, or skips across blocks)"
                f"{_instead(graph)}"
            )
        tail = nodes[order[point] + 1 : order[end]] if end is not None else []
        blocks.append(
            Block(
                start=start,
                attention=site,
                merge_point=point,
                heads=heads_of(site),
                channels=shape_of(point)[-1],
                end=end,
                tail_macs=growing_macs(tail, layouts),
                tokens_read=demand[point],
            )
        )
    return tuple(blocks)


def _after_norms(values: list[fx.Node]) -> list[fx.Node]:
    """The values of a block that its tokens flow through; of a block that normalises its sums, what is normalised."""

    def is_normalised(node: fx.Node) -> bool:
        reader, *others = node.users
        return not others and has(reader, Trait.NORMALIZATION) and reader in values

    if not values or not is_normalised(values[0]):
        return values
    return [node for node in values if not is_normalised(node)]


def _why_no_attention(graph: fx.Graph, layouts: Mapping[fx.Node, Layout]) -> str:
    for node in calls(graph, sdpa):
        for layout in (layouts.get(operand(node, position)) for position in range(3)):
            if isinstance(layout, Scrambled):
                return f"no attention over the whole image: at node {layout.node}, {layout.reason}"
    needed = "expected attention over image tokens, found none"
    hidden = next(
        (node for node in calls(graph, aten.softmax.int) if isinstance(layouts.get(node), Scrambled)), None
    )
    if hidden is None:
        return f"{needed}; token merging needs a Vision Transformer"
    layout = layouts[hidden]
    assert isinstance(layout, Scrambled)
    return f"{needed} in a form that is recognised: at node {layout.node}, {layout.reason}"


def _refusals(
    obstacles: Mapping[fx.Node, Sequence[str]],
    layouts: Mapping[fx.Node, Layout],
    depths: Depths,
    settled: Collection[fx.Node],
) -> tuple[Refusal, ...]:
    """What reads tokens after merge point l and cannot follow stands in the way of merging in blocks 0..l.

    Nothing can be made whole on the way to attention or to a merge point, where the `settled` ones are.
    """
    found: list[Refusal] = []
    for node in depths.reads:
        sources = [source for source in token_inputs(node, layouts) if depths.values[source] > 0]
        joins = [_JOINS] if node in depths.restoring and node not in obstacles else []
        for reason in (*obstacles.get(node, ()), *joins) if sources else ():
            found.append(
                Refusal(
                    node=node.name,
                    reason=reason,
                    block=max(depths.values[source] for source in sources) - 1,
                    restorable=node not in settled
                    and all(is_restorable(source, layouts) for source in sources),
                    at_output=node.op == "output",
                )
            )
    return tuple(found)


def find_obstacles(
    graph: fx.Graph, layouts: Mapping[fx.Node, Layout], padding: Padding
) -> dict[fx.Node, list[str]]:
    """By node, why it cannot read tokens of which some have left."""
    totals = {mean.total for mean in padding.means}
    found = {
        node: list(_obstacles(node, layouts, padding.mask)) for node in graph.nodes if node not in totals
    }
    return {node: reasons for node, reasons in found.items() if reasons}


def _obstacles(node: fx.Node, layouts: Mapping[fx.Node, Layout], key_mask: fx.Node | None) -> Iterator[str]:
    layout = layouts.get(node)
    for table in tables(node, layouts):
        if table.obstacle:
            yield f"a table with one entry per token ({table.source.name}) is applied here, and {table.obstacle}"
    if isinstance(layout, Scrambled) and token_inputs(node, layouts):
        yield layout.reason
    if node.target is sdpa and token_inputs(node, layouts):
        mask, _ = parts_of_mask(node)
        if mask in layouts and mask is not key_mask:
            yield "its mask depends on the image, and no rule merges it"
        elif mask is not None and mask not in layouts and mask.meta["val"].dtype == torch.bool:
            yield "its mask forbids attention between positions, and a merged token has several"
        if node.kwargs.get("is_causal"):
            yield "causal attention depends on the order of the tokens"
    reduces = has(node, Trait.REDUCTION) and _reduces_tokens(node, layouts)
    if reduces and not _is_mean_of_tokens(node, layouts):
        yield "only a mean over the tokens of a (B, N, C) value can be weighted by their sizes"
    if node.op == "output":
        for source in token_inputs(node, layouts):
            yield f"the output {source.name} has one entry per token"


def _head(
    graph: fx.Graph,
    layouts: Mapping[fx.Node, Layout],
    last_point: fx.Node,
    pools: Sequence[object],
    attention_pools: Sequence[fx.Node],
) -> str:
    nodes = list(graph.nodes)
    picked = any(
        node.target in (aten.select.int, aten.slice.Tensor)
        and layouts.get(node) is None
        and token_inputs(node, layouts)
        for node in nodes[nodes.index(last_point) :]
    )
    kinds = (("prefix tokens", picked), ("mean over tokens", pools), ("attention pooling", attention_pools))
    return " + ".join(word for word, present in kinds if present) or "tokens otherwise"
