"""Pass: compute the tables of positions once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, fx

from exporter.anatomy.tables import Table, tables
from exporter.anatomy.token_axis import trace_tokens
from exporter.errors import UnsupportedGraphError
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import add_parameter, evaluate, image_dependent, shape_of
from exporter.graph.operators import sdpa
from exporter.rewrite.context import PassContext

FORBIDDING = 1e4
"""A bias of this size rules attention out and does not weigh it: masks that are added hold -inf or a type's minimum."""


@dataclass(frozen=True, kw_only=True)
class FoldTables(GraphPass):
    """Turn every table that is read after the first reduction into a constant that positions can be looked up in.

    Given: rotary tables and position biases, computed without the image.
    Result: buffers with as many axes as the reader's result and one entry for all images; of equal ones a single one.

    Attributes:
        readers: the nodes that read a table after the first reduction.
    """

    readers: tuple[fx.Node, ...]
    name: ClassVar[str] = "fold_tables"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None where no token leaves, or no table is read after that, as none is around an attention."""
        anatomy = context.anatomy
        if anatomy is None or not any(context.sites) or context.schedule.around:
            return None
        blocks = zip(anatomy.blocks, context.sites, strict=True)
        first = next(block.merge_point for block, site in blocks if site)
        after = list(first.graph.nodes)
        readers = [
            node for node in after[after.index(first) :] if any(True for _ in tables(node, anatomy.layouts))
        ]
        return cls(readers=tuple(readers)) if readers else None

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Fold.

        Raises:
            UnsupportedGraphError: a bias forbids attention, or a table differs from image to image.
        """
        layouts = trace_tokens(graph_module.graph)
        constants = _Constants(graph_module=graph_module, values=_constant_values(graph_module))
        for node in self.readers:
            for table in list(tables(node, layouts)):
                table.reader.replace_input_with(table.source, constants.of_table(table, node))
        return PassOutcome(name=self.name, rewrites=len(self.readers))

    def ensures(self, graph_module: fx.GraphModule) -> str | None:
        """Every table has the form that was promised."""
        layouts = trace_tokens(graph_module.graph)
        for table in (table for node in self.readers for table in tables(node, layouts)):
            shape = shape_of(table.source)
            if table.source.op != "get_attr" or len(shape) != table.ndim or shape[table.image_axis] != 1:
                return f"{table.source.name} is no table for all images"
        return None


def _constant_values(graph_module: fx.GraphModule) -> dict[fx.Node, Any]:
    """Every value without the image, computed in the order of the graph, since some are written to in place."""
    values = dict[fx.Node, Any]()
    dependent = image_dependent(graph_module.graph)
    for node in graph_module.graph.nodes:
        if node not in dependent and node.op in ("get_attr", "call_function"):
            values[node] = evaluate(graph_module, node, values)
    return values


@dataclass(kw_only=True)
class _Constants:
    """The buffers that tables became so far."""

    graph_module: fx.GraphModule
    values: Mapping[fx.Node, Any]
    buffers: list[tuple[Tensor, fx.Node]] = field(default_factory=list)

    def of_table(self, table: Table, reader: fx.Node) -> fx.Node:
        """The buffer that holds a table."""
        value = _for_all_images(self.values[table.source], table)
        if reader.target is sdpa and not bool((value.abs() < FORBIDDING).all()):
            raise UnsupportedGraphError(
                f"model: cannot merge tokens because of node {reader.name}: its mask {table.source.name} forbids "
                "attention between positions, and a merged token has several; use --r 0 for the dense model"
            )
        for known, node in self.buffers:
            if known.shape == value.shape and torch.equal(known, value):
                return node
        node = add_parameter(self.graph_module, table.reader, "table", value)
        self.buffers.append((value, node))
        return node


def _for_all_images(value: Tensor, table: Table) -> Tensor:
    value = value.reshape(*(1,) * (table.ndim - value.dim()), *value.shape)
    first = value.narrow(table.image_axis, 0, 1)
    if not torch.equal(first.expand_as(value), value):
        raise UnsupportedGraphError(
            f"model: cannot merge tokens because of node {table.source.name}: its entries differ from image to image, "
            "and yet do not depend on them; use --r 0 for the dense model"
        )
    return first
