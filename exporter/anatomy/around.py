"""Self-attention over a feature map: tokens can merge just before it, and be restored just after it.

In: a captured graph, through which no single value need carry the whole image: a UNet with its skips, a diffusion
transformer. Out: a `Block` for every residual self-attention whose tokens are the cells of a (B, C, H, W) value. What
lies between its two ends sees fewer tokens, and nothing else does; so nothing outside can stand in the way.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, sqrt

from torch import fx

from exporter.anatomy.block import Block, heads_of, is_stream
from exporter.anatomy.layout import Layout, PatchGrid, TokenAxis, axes_of
from exporter.anatomy.tables import tables
from exporter.anatomy.token_axis import layout_of, token_inputs
from exporter.anatomy.work import growing_macs, macs_of
from exporter.graph.nodes import (
    calls,
    example_batch,
    image_dependent,
    input_nodes,
    mask_of,
    operand,
    shape_of,
)
from exporter.graph.operators import Trait, aten, has, operators, sdpa
from exporter.schedule import Grid, Workload

_MAPS = operators(Trait.CONVOLUTION) | {aten.group_norm.default, aten.upsample_nearest2d.vec}
"""Operators whose value of four axes is a feature map (B, C, H, W), whatever it was made of."""


def blocks_around(graph: fx.Graph) -> tuple[Mapping[fx.Node, Layout], tuple[Block, ...]]:
    """Layouts of all values, and the blocks in order."""
    layouts, grids = _feature_maps(graph)
    order = {node: position for position, node in enumerate(graph.nodes)}
    largest = max(
        (shape_of(node)[-2:] for node in input_nodes(graph) if len(shape_of(node)) == 4), default=(1, 1)
    )
    found = []
    for site in calls(graph, sdpa):
        ends = _ends(site, layouts)
        if ends is None:
            continue
        stream, entry, end = ends
        inside = between(entry, end)
        if order[stream] > order[inside[0]] or not _is_closed(inside, end, layouts):
            continue
        rows, columns = grids[entry]
        found.append(
            Block(
                start=stream,
                attention=site,
                merge_point=entry,
                heads=heads_of(site),
                channels=shape_of(stream)[-1],
                end=end,
                tail_macs=growing_macs(inside, layouts),
                tokens_read=None,
                grid=Grid(
                    rows=rows,
                    columns=columns,
                    downsampling=ceil(sqrt(largest[0] * largest[1] // (rows * columns))),
                ),
            )
        )
    return layouts, tuple(found)


def between(entry: fx.Node, end: fx.Node) -> list[fx.Node]:
    """The nodes by which one value is computed from another, in order: without the first, with the last."""
    needed, waiting = set[fx.Node](), [end]
    while waiting:
        node = waiting.pop()
        if node not in needed and node is not entry:
            needed.add(node)
            waiting += node.all_input_nodes
    through = {entry}
    for node in entry.graph.nodes:
        if node in needed and through.intersection(node.all_input_nodes):
            through.add(node)
    return [node for node in entry.graph.nodes if node in through and node is not entry]


def work_around(graph: fx.Graph, blocks: Sequence[Block]) -> Workload:
    """Multiply-accumulates of one image: a segment for every block, in which its tokens are merged, and the rest."""
    per_token, per_pair = zip(*(block.tail_macs for block in blocks), strict=True)
    counts = [shape_of(block.merge_point)[1] for block in blocks]
    growing = Workload(fixed=0, per_token=per_token, per_pair=per_pair).macs(counts)
    whole = sum(macs_of(node) for node in image_dependent(graph)) // example_batch(graph)
    return Workload(fixed=whole - growing, per_token=(*per_token, 0), per_pair=(*per_pair, 0))


def _feature_maps(graph: fx.Graph) -> tuple[dict[fx.Node, Layout], dict[fx.Node, tuple[int, int]]]:
    """Layouts, begun anew at every feature map; and of every value with cells or tokens, rows and columns."""
    layouts: dict[fx.Node, Layout] = {}
    grids: dict[fx.Node, tuple[int, int]] = {}
    dependent = image_dependent(graph)
    for node in graph.nodes:
        if node not in dependent or node.op == "output":
            continue
        layouts[node] = layout = _layout(node, layouts)
        if isinstance(layout, PatchGrid):
            grids[node] = (layout.rows, layout.columns)
        elif isinstance(layout, TokenAxis):
            grids[node] = next(grids[source] for source in node.all_input_nodes if source in grids)
    return layouts, grids


def _layout(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> Layout:
    if node.target in _MAPS and len(shape_of(node)) == 4:
        _, _, rows, columns = shape_of(node)
        return PatchGrid(axis=2, rows=rows, columns=columns)
    if node.target is aten.embedding.default:  # of classes or texts, which are no cells
        return None
    return layout_of(node, layouts)


def _ends(site: fx.Node, layouts: Mapping[fx.Node, Layout]) -> tuple[fx.Node, fx.Node, fx.Node] | None:
    """The residual stream before an attention, what the attention reads, and what it adds to the stream.

    None for one that is no residual self-attention without a mask over the tokens of an image without prefix tokens.
    """
    rows = [layouts.get(operand(site, position)) for position in range(3)]
    if not isinstance(rows[0], TokenAxis) or any(each != rows[0] for each in rows) or rows[0].prefix:
        return None
    if mask_of(site) is not None or site.kwargs.get("is_causal"):
        return None
    entry, end = _entry(site, layouts), _end(site, layouts)
    if entry is None:
        return None
    joins = [user for user in end.users if user.target is aten.add.Tensor]
    others = [source for join in joins for source in token_inputs(join, layouts) if source is not end]
    if len(end.users) != 1 or len(others) != 1 or not _batch_first((entry, end, *others), layouts):
        return None
    return others[0], entry, end


def _batch_first(nodes: Sequence[fx.Node], layouts: Mapping[fx.Node, Layout]) -> bool:
    return all(is_stream(node, layouts) and axes_of(layouts[node]) == (1,) for node in nodes)


def _entry(site: fx.Node, layouts: Mapping[fx.Node, Layout]) -> fx.Node | None:
    """The nearest (B, N, C) value that queries, keys and values are all projected from, each token by itself."""
    queries, keys, values = (_chain(operand(site, position), layouts) for position in range(3))
    shared = set(keys).intersection(values)
    for reader, node in pairwise(queries):
        if node in shared and has(reader, Trait.LINEAR) and is_stream(node, layouts):
            return node
    return None


def _chain(node: fx.Node, layouts: Mapping[fx.Node, Layout]) -> list[fx.Node]:
    """The values with tokens that a value was computed from, as far as each was computed from one alone."""
    chain = [node]
    while len(sources := token_inputs(chain[-1], layouts)) == 1:
        chain += sources
    return chain


def _end(site: fx.Node, layouts: Mapping[fx.Node, Layout]) -> fx.Node:
    """The last value that is computed from an attention's result alone, token by token."""
    node = site
    while len(node.users) == 1:
        (user,) = node.users
        if token_inputs(user, layouts) != [node] or not isinstance(layouts.get(user), TokenAxis):
            break
        node = user
    return node


def _is_closed(inside: Sequence[fx.Node], end: fx.Node, layouts: Mapping[fx.Node, Layout]) -> bool:
    """Whether nothing outside reads a value inside, and no table has an entry for each of the tokens inside."""
    return not any(
        any(tables(node, layouts)) or (node is not end and not set(node.users).issubset(inside))
        for node in inside
    )
