"""Pass: decide in which blocks tokens are really merged."""

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import fx

from exporter.graph import GraphPass, PassOutcome
from exporter.reduction import Site
from exporter.rewrite.context import PassContext
from exporter.rewrite.remove_dead_tokens import RemoveDeadTokens


@dataclass(frozen=True, kw_only=True)
class PlanMerges(GraphPass):
    """Take the merges from the schedule, without those whose result is cut away.

    It runs before dead tokens are removed, since afterwards the last block no longer shows its tokens.

    Attributes:
        context: `sites` is written.
    """

    context: PassContext
    name: ClassVar[str] = "plan_merges"
    only_notes: ClassVar[bool] = True

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None without anatomy, which is without blocks."""
        return None if context.anatomy is None else cls(context=context)

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Write the plan.

        Raises:
            UnsupportedGraphError: something in the graph cannot follow the merges.
        """
        anatomy, schedule = self.context.anatomy, self.context.schedule
        assert anatomy is not None
        asked = self.context.options
        anatomy.check_mergeable(
            schedule.removed, dense_outputs=asked.dense_outputs, reduced_outputs=asked.reduced_outputs
        )
        trims = RemoveDeadTokens.name not in self.context.options.disabled
        counts = zip(anatomy.blocks, schedule.removed, schedule.dropped, strict=True)
        self.context.sites = tuple(
            None
            if r == 0 or (trims and block.tokens_read is not None)
            else Site(
                r=r,
                dropped=dropped,
                prefix=anatomy.prefix,
                depth=index / len(anatomy.blocks),
                tokens=anatomy.tokens if block.grid is None else block.grid.tokens,
                grid=None if block.grid is None else (block.grid.rows, block.grid.columns),
            )
            for index, (block, r, dropped) in enumerate(counts)
        )
        return PassOutcome(name=self.name, rewrites=0)
