"""Follow tokens through a merging program: what merged into what, and how far every block is from the dense model.

In: a `RewrittenProgram` and images. Out: the groups that a picture of the merges is drawn from, and errors per block.

Shapes: L blocks, B images, T tokens that enter the first block, K tokens after a merge, C channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from exporter.anatomy import Anatomy, TokenAxis
from exporter.reduction.merge import Match, merge, read_match
from exporter.rewrite import RewrittenProgram
from exporter.validation.block_error import follow_groups, initial_groups, relative_error


def groups_of(program: RewrittenProgram, records: Sequence[Tensor], tokens: int) -> Tensor:
    """After every block, the number of the token that each original token has become part of.

    Args:
        program: whose merges they are.
        records: the match of every block that merges, as `record_match` has them.
        tokens: that enter the first block.

    Returns:
        (L, B, T) int32.
    """
    matches = {
        block: read_match(record, program.merged[block])
        for block, record in zip(program.merging_blocks, records, strict=True)
    }
    groups_BT = initial_groups(len(records[0]), tokens)
    after_every_block = []
    for block in range(len(program.merged)):
        if block in matches:
            groups_BT = follow_groups(groups_BT, matches[block])
        after_every_block.append(groups_BT)
    return torch.stack(after_every_block).to(torch.int32)


def block_errors(
    program: RewrittenProgram, dense: fx.GraphModule, anatomy: Anatomy, images: Tensor, normalized: Tensor
) -> dict[int, float]:
    """Relative error of the tokens behind every merge, against the same place in the dense model.

    Every original token is compared with the token that it has become part of.

    Args:
        program: rewritten.
        dense: the captured graph that it was rewritten from.
        anatomy: of `dense`.
        images: one batch, as `program` takes it.
        normalized: the same batch, as `dense` takes it.

    Returns:
        By block that merges.
    """
    with torch.no_grad():
        traced = _trace_merges(program, images)
        states = _trace_nodes(dense, [block.merge_point for block in anatomy.blocks], normalized)
    errors: dict[int, float] = {}
    groups_BT: Tensor | None = None
    for block, (match, merged_BKC) in zip(program.merging_blocks, traced, strict=True):
        point = anatomy.blocks[block].merge_point
        layout = anatomy.layouts[point]
        assert isinstance(layout, TokenAxis)
        dense_BTC = states[point].transpose(0, 1) if layout.axis == 0 else states[point]
        if groups_BT is None:
            groups_BT = initial_groups(*dense_BTC.shape[:2])
        groups_BT = follow_groups(groups_BT, match)
        errors[block] = relative_error(dense_BTC, merged_BKC, groups_BT)
    return errors


def _trace_merges(program: RewrittenProgram, images: Tensor) -> list[tuple[Match, Tensor]]:
    tracer = _MergeTracer(program)
    tracer.run(images)
    return tracer.traced


def _trace_nodes(
    graph_module: fx.GraphModule, nodes: Sequence[fx.Node], images: Tensor
) -> Mapping[fx.Node, Tensor]:
    tracer = _NodeTracer(graph_module, frozenset(nodes))
    tracer.run(images)
    return tracer.values


class _MergeTracer(fx.Interpreter):
    """Executes a merging graph and keeps, of every merge, its match and the tokens behind it."""

    def __init__(self, program: RewrittenProgram) -> None:
        super().__init__(program.merging)
        self.traced: list[tuple[Match, Tensor]] = []

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = super().call_function(target, args, kwargs)
        if target is merge:
            self.traced.append((args[2], result[0]))
        return result


class _NodeTracer(fx.Interpreter):
    """Executes a graph and keeps the values of some nodes."""

    def __init__(self, graph_module: fx.GraphModule, wanted: frozenset[fx.Node]) -> None:
        super().__init__(graph_module)
        self._wanted = wanted
        self.values: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self._wanted:
            self.values[n] = result
        return result
