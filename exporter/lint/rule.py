"""What a rule is: a card that says why and by whom, and a check that yields the places that break it.

Where it stands on the road: the rule modules fill their lists with these, `lint` runs them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from exporter.lint.graph_facts import GraphFacts, Node
from exporter.lint.report import DEVICES, Device, RuleCard


@dataclass(frozen=True, kw_only=True)
class Breach:
    """One place that breaks a rule.

    Attributes:
        at: the node; or the name of an input, or `model`.
        expected: by the engine.
        got: from the model.
        fix: what to do about it, in an imperative half sentence.
    """

    at: Node | str
    expected: str
    got: str
    fix: str


Check = Callable[[GraphFacts], Iterator[Breach]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule of one engine.

    Attributes:
        card: what it is called, how bad it is to break it, and who says so.
        check: yields the places that break it.
        devices: that it holds on.
        attention: whether breaking it means that an attention does not run fused. The breach is then at the node
            that identifies the attention.
    """

    card: RuleCard
    check: Check
    devices: tuple[Device, ...] = DEVICES
    attention: bool = False
