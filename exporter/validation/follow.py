"""Run the eager program along an engine's own matches.

Rounding can flip a near-tie: the engine then merges other tokens than eager PyTorch does, and every number behind
differs, although nothing was miscompiled. So where matches differ, eager PyTorch is run again with the engine's
matches put in place of its own. Two things are measured: whether the numbers agree then, and by how much each match
misses the method's definition (its regret), which for a near-tie is a rounding error and for a wrong match is not.
"""

from collections.abc import Sequence
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


class _Follower(fx.Interpreter):
    """Executes the merging graph, with the matching replaced by a record of it."""

    def __init__(self, program: RewrittenProgram, records: Sequence[Tensor]) -> None:
        super().__init__(program.merging)
        self._method = program.method
        self._records = iter(records)
        self.regret = 0.0

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is not self._method.match:
            return super().call_function(target, args, kwargs)
        match = read_match(next(self._records), kwargs["r"])
        regret = self._method.regret(*args, match, **kwargs).max() if _is_partition(match) else float("inf")
        self.regret = max(self.regret, float(regret))
        return match


def _is_partition(match: Match) -> bool:
    """Whether every token either stays or merges, once."""
    order_BN = torch.cat((match.kept_BK, match.source_BR), dim=1)
    return bool((order_BN.sort(dim=1).values == torch.arange(order_BN.shape[1])).all())
