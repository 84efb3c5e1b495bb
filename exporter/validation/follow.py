"""Run the eager program along an engine's own matches.

Rounding can flip a near-tie: the engine then merges other tokens than eager PyTorch does, and every number behind
differs, although nothing was miscompiled. So where matches differ, eager PyTorch is run again with the engine's
matches put in place of its own. Two things are measured: whether the numbers agree then, and by how much each match
misses the method's definition (its regret), which for a near-tie is a rounding error and for a wrong match is not.
"""

from collections.abc import Container, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from exporter.reduction.merge import Match, read_match
from exporter.rewrite import RewrittenProgram


def follow_matches(
    program: RewrittenProgram, images: Tensor, records: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], float]:
    """The eager outputs under given matches, and the largest regret of any of them.

    Args:
        program: rewritten.
        images: one batch.
        records: the engine's matches, one per merging block, as `record_match` has them.
    """
    follower = _Follower(program, records)
    with torch.no_grad():
        results = follower.run(images)
    return tuple(results[: program.outputs]), follower.regret


def rounding_errors(program: RewrittenProgram, typed: RewrittenProgram, images: Tensor) -> dict[int, float]:
    """What computing in 16 bits costs, by block: relative error of the tokens, || wide - narrow || / || wide ||.

    The wide program merges what the narrow one merges, so that a near-tie that rounding flips counts as no error.

    Args:
        program: in fp32.
        typed: the same program in 16 bits.
        images: one batch.
    """
    points = {name: block for block, name in program.merge_points.items()}
    narrow = _Follower(typed, None, points)
    with torch.no_grad():
        results = narrow.run(images)
        wide = _Follower(program, results[typed.outputs :], points)
        wide.run(images)
    return {
        points[name]: float((value - narrow.kept[name].double()).norm() / value.norm())
        for name, value in ((name, kept.double()) for name, kept in wide.kept.items())
    }


class _Follower(fx.Interpreter):
    """Executes the merging graph, with the matching replaced by a record of it, if one is given.

    Attributes:
        regret: the largest of any match in the record.
        kept: values of the nodes that are wanted, by name.
    """

    def __init__(
        self, program: RewrittenProgram, records: Sequence[Tensor] | None, wanted: Container[str] = ()
    ) -> None:
        super().__init__(program.merging)
        self._method = program.method
        self._records = None if records is None else iter(records)
        self._wanted = wanted
        self.regret = 0.0
        self.kept: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self._wanted:
            self.kept[n.name] = result
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is not self._method.match or self._records is None:
            return super().call_function(target, args, kwargs)
        match = read_match(next(self._records), kwargs["r"])
        regret = self._method.regret(*args, match, **kwargs).max() if _is_partition(match) else float("inf")
        self.regret = max(self.regret, float(regret))
        return match


def _is_partition(match: Match) -> bool:
    """Whether every token either stays or merges, once."""
    order_BN = torch.cat((match.kept_BK, match.source_BR), dim=1)
    return bool((order_BN.sort(dim=1).values == torch.arange(order_BN.shape[1])).all())
