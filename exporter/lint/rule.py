"""What a rule is: a card that says why and by whom, and a check that finds the places that break it.

The rule modules fill their lists with these, `lint` runs them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from exporter.lint.attention import Attention, attentions
from exporter.lint.graph_facts import GraphFacts, Node
from exporter.lint.report import DEVICES, Device, RuleCard, Severity, Source


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A verdict whose expectation depends on the place; what is empty here is as the rule says."""

    got: str
    expected: str
    fix: str = ""


Verdict = Wrong | str
"""What is wrong at one place: what was got from the model; empty where the rule is kept."""

Check = Callable[[GraphFacts], Iterator[tuple[Node | str, Verdict]]]
"""Yields places (a node, the name of an input, or `model`) with their verdicts."""


@dataclass(frozen=True, kw_only=True)
class Breach:
    """One place that breaks a rule: the node, or the name of an input, or `model`; the texts of its finding."""

    at: Node | str
    expected: str
    got: str
    fix: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule of one engine.

    Attributes:
        card: what it is called, how bad it is to break it, and who says so.
        check: finds the places that break it.
        fix: what to do about it, in an imperative half sentence.
        expected: by the engine; empty if every verdict says it.
        devices: that it holds on.
        attention: whether breaking it means that an attention does not run fused. The breach is then at the node
            that identifies the attention.
    """

    card: RuleCard
    check: Check
    fix: str
    expected: str = ""
    devices: tuple[Device, ...] = DEVICES
    attention: bool = False

    def breaches(self, facts: GraphFacts) -> Iterator[Breach]:
        """The places that break it, in graph order."""
        for at, verdict in self.check(facts):
            if isinstance(verdict, Wrong):
                fix = verdict.fix or self.fix
                yield Breach(at=at, expected=verdict.expected, got=verdict.got, fix=fix)
            elif verdict:
                yield Breach(at=at, expected=self.expected, got=verdict, fix=self.fix)


def card(id: str, severity: Severity, why: str, source: Source) -> RuleCard:
    """A rule's card, in one line of a list of rules."""
    return RuleCard(id=id, severity=severity, why=why, source=source)


def of_model(verdict: Callable[[GraphFacts], Verdict]) -> Check:
    """A check of the file as a whole."""
    return lambda facts: iter([("model", verdict(facts))])


def of_nodes(verdict: Callable[[GraphFacts, Node], Verdict], *operators: str) -> Check:
    """A check of every node, or of every node of these operators of the default domain."""
    return lambda facts: (
        (node, verdict(facts, node)) for node in (facts.of(*operators) if operators else facts.nodes)
    )


def of_attentions(verdict: Callable[[GraphFacts, Attention], Verdict]) -> Check:
    """A check of every attention, reported at the node that identifies it."""
    return lambda facts: ((site.node, verdict(facts, site)) for site in attentions(facts))
