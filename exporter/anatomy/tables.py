"""Tables of positions: values that are the same for every image and have an entry per token, or per pair of tokens.

In: a node and the layouts of its graph. Out: the tables that it reads. Rotary tables, relative-position bias and
position embeddings that are added inside of blocks are such values. After a merge, a token is found in them by its own
position; where that has no meaning, the table says why.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import fx

from exporter.anatomy.layout import TokenAxis
from exporter.anatomy.padding import parts_of_mask
from exporter.anatomy.token_axis import side_inputs
from exporter.anatomy.token_rules import Layouts
from exporter.graph.nodes import example_batch, mask_of, operand, shape_of
from exporter.graph.operators import sdpa


@dataclass(frozen=True, kw_only=True)
class Table:
    """A value without the image that has an entry for every token, or pair of tokens, of its reader.

    Axes are those of the reader's result, of attention those of its logits; the value's own align with them from the
    right.

    Attributes:
        source: the value.
        reader: the node whose operand it is: the one that was asked about, or where its mask is put together.
        ndim: how many axes there are.
        token_axes: that hold the tokens: one, or two for pairs.
        image_axis: that holds the images.
        prefix: how many of the reader's tokens, the first ones, come from no patch.
        obstacle: why no entry can be looked up by a token's position; None where it can.
    """

    source: fx.Node
    reader: fx.Node
    ndim: int
    token_axes: tuple[int, ...]
    image_axis: int
    prefix: int
    obstacle: str | None


def tables(node: fx.Node, layouts: Layouts) -> Iterator[Table]:
    """The tables that a node reads."""
    layout = layouts.get(node)
    for source in side_inputs(node, layouts):
        assert isinstance(layout, TokenAxis)
        yield _table(source, node, {layout.axis: layout})
    mask, bias = parts_of_mask(node) if node.target is sdpa else (None, None)
    reader = node
    if bias is not None:
        mask, reader = bias, mask_of(node) or node
    if mask is not None and mask not in layouts:
        per_token = {
            len(shape_of(node)) + axis: tokens
            for axis in (-2, -1)
            if isinstance(tokens := layouts.get(operand(node, axis + 2)), TokenAxis)
            and (1, 1, *shape_of(mask))[axis] != 1
        }
        if per_token:
            yield replace(_table(mask, node, per_token), reader=reader)


def _table(source: fx.Node, reader: fx.Node, tokens: dict[int, TokenAxis]) -> Table:
    first, *_ = tokens.values()
    image_axis = _image_axis(reader, first.axis)
    return Table(
        source=source,
        reader=reader,
        ndim=len(shape_of(reader)),
        token_axes=tuple(tokens),
        image_axis=image_axis or 0,
        prefix=first.prefix,
        obstacle=_obstacle(tokens, image_axis),
    )


def _obstacle(tokens: dict[int, TokenAxis], image_axis: int | None) -> str | None:
    """Why a token's position finds no entry."""
    if not all(layout.is_plain for layout in tokens.values()):
        return "its tokens share an axis with something else"
    if len({layout.prefix for layout in tokens.values()}) > 1:
        return "its rows and columns are not the same tokens"
    if image_axis is None:
        return "the axis of the images cannot be told from others"
    return None


def _image_axis(node: fx.Node, token_axis: int) -> int | None:
    """The axis of a value that holds the images and nothing else; None where it cannot be told from others."""
    sizes = node.meta["val"].shape
    free = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
    batch = example_batch(node.graph)
    fitting = [axis for axis, size in enumerate(shape_of(node)) if size == batch and axis != token_axis]
    found = [axis for axis in free if axis in fitting] if free else fitting
    return found[0] if len(found) == 1 else None
