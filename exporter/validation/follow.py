"""Run the eager program along an engine's own matches.

Rounding can flip a near-tie: the engine then merges other tokens than eager PyTorch does, and every later number
differs, although nothing was miscompiled. So where matches differ, eager PyTorch is run again with the engine's
matches in place of its own. Two things are measured: whether the numbers agree then, and by how much each match
misses the method's definition (its regret), which for a near-tie is a rounding error and for a wrong match is not.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from exporter.reduction.match import Match, is_partition, matched_pairs
from exporter.rewrite import RewrittenProgram
from exporter.rewrite.role import Role, role_of


def follow_matches(
    program: RewrittenProgram, inputs: Sequence[Tensor], records: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], float]:
    """The eager outputs under given matches, and the largest regret of any of them.

    Args:
        program: rewritten.
        inputs: one batch, in the order of the call.
        records: the engine's matches, one per merging block (`record_match`).
    """
    follower = _Follower(program, program.matches(records))
    with torch.no_grad():
        results = follower.run(*inputs)
    return tuple(results[: program.outputs]), follower.regret


def agreements(program: RewrittenProgram, engine: Sequence[Tensor], eager: Sequence[Tensor]) -> list[float]:
    """Per merging block the share of the engine's (source, target) pairs that are among eager PyTorch's.

    Where slots may be empty, it is the share of the slots that hold the same token or are empty in both, if that is
    less.

    Args:
        program: whose matches were recorded.
        engine: records of the engine; none where it does not return them.
        eager: records of eager PyTorch.
    """
    shares = []
    both = zip(program.matches(engine).values(), program.matches(eager).values(), strict=False)
    for match, own in both:
        pairs, own_pairs = matched_pairs(match), matched_pairs(own)
        same = (pairs[:, :, None, :] == own_pairs[:, None, :, :]).all(dim=-1).any(dim=-1)
        shares.append(min(float(same.float().mean()), _same_slots(match, own)))
    return shares


def _same_slots(match: Match, own: Match) -> float:
    """The share of slots that hold the same token, or are empty in both; 1 where no slot can be empty."""
    if match.absent is None or own.absent is None:
        return 1.0
    both_empty = (match.absent == 1) & (own.absent == 1)
    same = (match.kept_BK == own.kept_BK) & (match.absent == own.absent)
    return float((same | both_empty).float().mean())


def rounding_errors(
    program: RewrittenProgram, typed: RewrittenProgram, inputs: Sequence[Tensor]
) -> dict[int, float]:
    """What computing in 16 bits costs, by block: relative error of the tokens, || wide - narrow || / || wide ||.

    The wide program merges what the narrow one merges, so that a near-tie that rounding flips counts as no error. Where
    a kernel does not give the tokens that it merges, those after the merge are compared.

    Args:
        program: in fp32.
        typed: the same program in 16 bits.
        inputs: one batch, in the order of the call.
    """
    roles = {role for node in typed.merging.graph.nodes if (role := role_of(node))}

    def place(node: fx.Node) -> int | None:
        role = role_of(node)
        if role is None or role not in roles:
            return None
        compared = "point" if Role("point", role.block) in roles else "merge"
        return role.block if role.part == compared else None

    narrow = Recorder(typed.merging, place, _tokens)
    with torch.no_grad():
        results = narrow.run(*inputs)
        wide = _Follower(program, typed.matches(results[typed.outputs :]), place, _tokens)
        wide.run(*inputs)
    return {
        block: float((value - narrow.kept[block].double()).norm() / value.norm())
        for block, value in ((block, kept.double()) for block, kept in wide.kept.items())
    }


def _tokens(value: Any) -> Tensor:
    """Tokens, or the tokens of a merge, which gives their sizes as well."""
    tokens: Tensor = value[0] if isinstance(value, tuple) else value
    return tokens


class Recorder(fx.Interpreter):
    """Executes a graph and keeps what `view` gives of the values of those nodes to which `key` gives a key.

    Attributes:
        kept: by key.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        key: Callable[[fx.Node], Any],
        view: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        super().__init__(graph_module)
        self._key, self._view = key, view
        self.kept: dict[Any, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Execute one node."""
        result = super().run_node(n)
        key = self._key(n)
        if key is not None:
            self.kept[key] = self._view(result)
        return result


class _Follower(Recorder):
    """Executes the merging graph with given matches in place of the method's own.

    Attributes:
        regret: the largest of any of them.
    """

    def __init__(
        self,
        program: RewrittenProgram,
        matches: Mapping[int, Match],
        key: Callable[[fx.Node], Any] = lambda node: None,
        view: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        super().__init__(program.merging, key, view)
        self._regret = program.method.regret
        self._matches = matches
        self.regret = 0.0

    def run_node(self, n: fx.Node) -> Any:
        match role_of(n):
            case Role(part="match", block=block):
                given = self._matches[block]
                signals, options = self.fetch_args_kwargs_from_env(n)
                sound = is_partition(given)
                regret = (
                    float(self._regret(*signals, match=given, **options).max()) if sound else float("inf")
                )
                self.regret = max(self.regret, regret)
                return given
        return super().run_node(n)


def needed_tokens(program: RewrittenProgram, images: Tensor) -> dict[int, Tensor]:
    """How many tokens of each image the method would keep at every block, if there were slots for all: int64 (B,)."""
    counter = _Counter(program)
    with torch.no_grad():
        counter.run(images)
    return counter.found


class _Counter(fx.Interpreter):
    """Executes the merging graph and asks the method at every decision how many tokens it needs."""

    def __init__(self, program: RewrittenProgram) -> None:
        super().__init__(program.merging)
        self._needed = program.method.needed
        self.found: dict[int, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        match role_of(n):
            case Role(part="match", block=block):
                assert self._needed is not None
                signals, options = self.fetch_args_kwargs_from_env(n)
                self.found[block] = self._needed(*signals, **options)
        return super().run_node(n)
