"""What a graph pass is, and how a list of them runs.

A pass is a frozen dataclass whose fields are its options. It says what it `requires`, does `call` in place on a graph
of its own, and says what it `ensures`; the runner checks both promises, so a broken graph is blamed on the pass that
broke it and not on the one that stumbles over it.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from exporter.errors import InternalError


@dataclass(frozen=True, kw_only=True)
class PassOutcome:
    """What one pass did: how many places it rewrote, and why it left others alone."""

    name: str
    rewrites: int
    declined: tuple[str, ...] = ()

    @property
    def modified(self) -> bool:
        """Whether the graph is another one now."""
        return self.rewrites > 0


class GraphPass(ABC):
    """One rewrite of a captured graph."""

    name: ClassVar[str]

    def requires(self, graph_module: fx.GraphModule) -> str | None:
        """What is missing for this pass to be sound, or None."""
        return None

    @abstractmethod
    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Rewrite `graph_module` in place."""

    def ensures(self, graph_module: fx.GraphModule) -> str | None:
        """What this pass promised and did not deliver, or None."""
        return None


def run_passes(graph_module: fx.GraphModule, passes: Sequence[GraphPass]) -> tuple[PassOutcome, ...]:
    """Run `passes` in order, in place. Parameters are shared with other graphs and never written to.

    Raises:
        InternalError: a pass's promise does not hold; the message names the passes that ran before it.
    """
    outcomes: list[PassOutcome] = []
    for graph_pass in passes:
        _check(graph_pass.requires(graph_module), "requires", graph_pass, outcomes)
        outcomes.append(graph_pass.call(graph_module))
        graph_module.graph.eliminate_dead_code()
        graph_module.graph.lint()
        _check(graph_pass.ensures(graph_module), "ensures", graph_pass, outcomes)
    graph_module.recompile()
    return tuple(outcomes)


def copy_graph(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A graph of one's own over the same parameters."""
    graph = fx.Graph()
    memo: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(graph_module.graph, memo)
    graph.output(output)
    for old, new in memo.items():
        new.meta = copy.copy(old.meta)
    return fx.GraphModule(graph_module, graph)


def _check(
    complaint: str | None, promise: str, graph_pass: GraphPass, outcomes: Sequence[PassOutcome]
) -> None:
    if complaint is not None:
        before = ", ".join(outcome.name for outcome in outcomes) or "none"
        raise InternalError(f"pass {graph_pass.name} {promise}: {complaint}; passes that ran: {before}")
