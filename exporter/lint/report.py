"""Result of the lint: plain values, without ONNX, so that printing them imports nothing of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Engine = Literal["trt", "trt-rtx", "ort", "openvino"]
Device = Literal["cpu", "cuda"]
Severity = Literal["error", "warning", "note"]

ENGINES: tuple[Engine, ...] = get_args(Engine)
DEVICES: tuple[Device, ...] = get_args(Device)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Who says so.

    Attributes:
        title: the document, with the version that it speaks of; or what was run, with its version.
        address: where it can be read.
    """

    title: str
    address: str


@dataclass(frozen=True, kw_only=True)
class RuleCard:
    """A rule without its check.

    Attributes:
        id: `trt-topk-k`.
        severity: `error`: the engine refuses the model or computes something else; `warning`: slow, or not fused;
            `note`: worth knowing.
        why: one sentence.
        source: of the rule.
    """

    id: str
    severity: Severity
    why: str
    source: Source


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One place that breaks a rule.

    Attributes:
        rule: its id.
        severity: the rule's.
        node: the node's name; or that of an input, or `model`.
        operator: the node's operator; empty for what is not a node.
        expected: by the engine.
        got: from the model.
        fix: what to do about it.
    """

    rule: str
    severity: Severity
    node: str
    operator: str
    expected: str
    got: str
    fix: str

    def __str__(self) -> str:
        operator = f" ({self.operator})" if self.operator else ""
        return f"{self.rule}: {self.node}{operator}: expected {self.expected}, got {self.got}: {self.fix}"


@dataclass(frozen=True, kw_only=True)
class LintReport:
    """What one engine makes of one model.

    Attributes:
        engine: that was asked about.
        device: that it would run on.
        findings: the worst first, in graph order among their like.
        rules: the broken ones, in the same order.
        attentions: how many the graph holds.
        fusable: how many of them meet every documented condition of a fused kernel. Always 0 for an engine without
            such rules.
    """

    engine: Engine
    device: Device
    findings: tuple[Finding, ...]
    rules: tuple[RuleCard, ...]
    attentions: int
    fusable: int

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What the engine refuses, or computes differently."""
        return self.of("error")

    @property
    def counts(self) -> Mapping[Severity, int]:
        """Findings by severity, zeros included."""
        return {severity: len(self.of(severity)) for severity in SEVERITIES}

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def to_tree(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "engine": self.engine,
            "device": self.device,
            "counts": dict(self.counts),
            "attentions": self.attentions,
            "fusable": self.fusable,
            "findings": [asdict(finding) for finding in self.findings],
            "rules": [asdict(rule) for rule in self.rules],
        }
