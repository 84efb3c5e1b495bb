"""The form of a graph pass, and the runner of a list of passes.

A pass is a frozen dataclass whose fields are its options. It states what it `requires`, does `call` in place on a
graph, and states what it `ensures`. The runner checks both, so an error names the pass that broke the graph and not a
later one that fails on it.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import fx

from exporter.errors import InternalError


@dataclass(frozen=True, kw_only=True)
class PassOutcome:
    """Result of one pass: how many places it rewrote, and why it left others alone."""

    name: str
    rewrites: int
    declined: tuple[str, ...] = ()

    @property
    def modified(self) -> bool:
        """Whether the pass changed the graph."""
        return self.rewrites > 0


class GraphPass(ABC):
    """One rewrite of a captured graph.

    Attributes:
        name: in snake case; users write it, and manifests list it.
        optional: whether the user may switch the pass off.
        only_notes: whether the pass computes nothing new and only records something.
    """

    name: ClassVar[str]
    optional: ClassVar[bool] = False
    only_notes: ClassVar[bool] = False

    @classmethod
    def configured(cls, context: Any) -> Self | None:
        """The pass with its options taken from a pipeline's context, or None where it has nothing to do there."""
        return cls()

    def requires(self, graph_module: fx.GraphModule) -> str | None:
        """What is missing for this pass to be sound, or None."""
        return None

    @abstractmethod
    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Rewrite `graph_module` in place."""

    def ensures(self, graph_module: fx.GraphModule) -> str | None:
        """The stated result that does not hold, or None."""
        return None

    def result(self, graph_module: fx.GraphModule) -> fx.GraphModule:
        """The graph after `call`: the one given, except for a pass that makes another one."""
        return graph_module


Listener = Callable[[GraphPass, fx.GraphModule], None]
"""Called after each pass with its result, which it must not change."""

_LISTENERS: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` after every pass that runs inside the `with` block."""
    token = _LISTENERS.set((*_LISTENERS.get(), listener))
    try:
        yield
    finally:
        _LISTENERS.reset(token)


def run_passes(graph_module: fx.GraphModule, passes: Iterable[GraphPass]) -> tuple[PassOutcome, ...]:
    """Run `passes` in order, in place. Parameters are shared with other graphs and never written to.

    Args:
        graph_module: rewritten.
        passes: an iterator is advanced only after the pass before has run.

    Raises:
        InternalError: what a pass requires or ensures does not hold; the message names the passes that ran before.
    """
    outcomes: list[PassOutcome] = []
    for graph_pass in passes:
        _check(graph_pass.requires(graph_module), "requires", graph_pass, outcomes)
        outcomes.append(graph_pass.call(graph_module))
        graph_module.graph.eliminate_dead_code()
        graph_module.graph.lint()
        _check(graph_pass.ensures(graph_module), "ensures", graph_pass, outcomes)
        for listener in _LISTENERS.get():
            listener(graph_pass, graph_pass.result(graph_module))
    graph_module.recompile()
    return tuple(outcomes)


def copy_graph(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the graph over the same parameters."""
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
