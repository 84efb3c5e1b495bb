"""How nodes read tables of positions after a reduction: the insertion's second half.

In: a graph in which tokens leave, node by node, and its tables as constants (`FoldTables`). Out: reads of the entries
that belong to the tokens that are left.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple, Self

from torch import Tensor, fx

from exporter.anatomy import Layout
from exporter.anatomy.tables import tables
from exporter.graph.nodes import attribute
from exporter.reduction.positions import entries_at, positions_of_kept, rotations_at, shares_of_kept

UNIT_CIRCLE = 0.02
"""How far the squares of a sine and a cosine may be from 1 together, in 16 bits."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the tokens that are left stand. What is not read is removed from the graph.

    Attributes:
        positions: where each one was at first.
        shares: what each one is the mean of.
        entries: what was read of tables so far, by table.
    """

    positions: fx.Node
    shares: fx.Node
    entries: dict[Any, fx.Node] = field(default_factory=dict)

    @classmethod
    def after(cls, match: fx.Node, sizes: fx.Node, before: Self | None, *, absent: bool) -> Self:
        """Insert what a match does to it."""
        graph = match.graph
        positions, shares = (before.positions, before.shares) if before else (None, None)
        return cls(
            positions=graph.call_function(positions_of_kept, (positions, match)),
            shares=graph.call_function(shares_of_kept, (shares, sizes, match), {"absent": absent}),
        )


@dataclass(frozen=True, kw_only=True)
class TableReader:
    """Lets nodes read the tables of a graph where the tokens stand.

    Attributes:
        prefix: tokens before the first block that come from no patch.
        partners: by name of a table that holds a sine or a cosine of angles, the name of the other.
    """

    prefix: int
    partners: Mapping[str, str]

    @classmethod
    def of(cls, graph_module: fx.GraphModule, layouts: Mapping[fx.Node, Layout], prefix: int) -> Self:
        """Find the tables that belong together: the squares of a sine and a cosine add up to 1 everywhere."""
        read = (table for node in graph_module.graph.nodes for table in tables(node, layouts))
        values = {
            str(table.source.target): attribute(graph_module, table.source)
            for table in read
            if table.source.op == "get_attr" and len(table.token_axes) == 1
        }
        pairs = [
            (first, second)
            for first, second in combinations(values, 2)
            if _are_partners(values[first], values[second])
        ]
        return cls(prefix=prefix, partners=dict((*pairs, *((second, first) for first, second in pairs))))

    def read(self, node: fx.Node, layouts: Mapping[fx.Node, Layout], standing: Standing) -> None:
        """Replace the tables among a node's operands by their entries for the tokens that are left."""
        for table in list(tables(node, layouts)):
            where = _Where(
                token_axes=table.token_axes,
                image_axis=table.image_axis,
                prefix_change=table.prefix - self.prefix,
            )
            key = (str(table.source.target), where)
            if key not in standing.entries:
                with node.graph.inserting_before(table.reader):
                    self._insert(table.source, where, standing)
            table.reader.replace_input_with(table.source, standing.entries[key])

    def _insert(self, source: fx.Node, where: "_Where", standing: Standing) -> None:
        """Insert the read of a table, or of both that belong together."""
        graph, name = source.graph, str(source.target)
        partner = self.partners.get(name)
        if partner is None:
            standing.entries[name, where] = graph.call_function(
                entries_at, (source, standing.positions), where._asdict()
            )
            return
        tables_of_both = (source, graph.get_attr(partner))
        both = graph.call_function(rotations_at, (*tables_of_both, standing.shares), where._asdict())
        for index, each in enumerate((name, partner)):
            standing.entries[each, where] = graph.call_function(operator.getitem, (both, index))


class _Where(NamedTuple):
    """Keywords of what reads a table."""

    token_axes: tuple[int, ...]
    image_axis: int
    prefix_change: int


def _are_partners(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape or not first.is_floating_point() or not second.is_floating_point():
        return False
    total = first.float().square() + second.float().square()
    return bool(((total - 1).abs() < UNIT_CIRCLE).all())
