"""Run an engine's rules over a model: the room's one public function.

In: an ONNX file or model. Out: a `LintReport`. ONNX is imported by the first call.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import UsageError, nearest
from exporter.lint.report import DEVICES, ENGINES, SEVERITIES, Device, Engine, Finding, LintReport

if TYPE_CHECKING:
    import onnx

    from exporter.lint.attention import Attention
    from exporter.lint.rule import Breach, Rule


def lint(model: "onnx.ModelProto | Path", engine: Engine, *, device: Device = "cpu") -> LintReport:
    """What an engine will refuse, run slowly or not fuse.

    Args:
        model: a file, whose external data need not be there; or a model in memory, which is left as it is.
        engine: `trt`, `trt-rtx`, `ort` or `openvino`.
        device: where ONNX Runtime is to run it, since its providers take different models; no other engine asks.

    Raises:
        UsageError: no such file, engine or device.
        BundleError: the file is no ONNX model, or a damaged one.
    """
    for word, known, kind in ((engine, ENGINES, "engine"), (device, DEVICES, "device")):
        if word not in known:
            choices = ", ".join(known)
            raise UsageError(f'lint: expected an {kind} of {choices}, got "{word}".{nearest(word, known)}')
    from exporter.lint.attention import attentions
    from exporter.lint.load import load_facts

    rules = tuple(rule for rule in _rules(engine) if device in rule.devices)
    facts = load_facts(model)
    broken = [(rule, breach) for rule in rules for breach in rule.breaches(facts)]
    broken.sort(key=lambda pair: SEVERITIES.index(pair[0].card.severity))
    found = attentions(facts)
    judged = any(rule.attention for rule in rules)
    return LintReport(
        engine=engine,
        device=device,
        findings=tuple(_finding(rule, breach) for rule, breach in broken),
        rules=tuple(dict.fromkeys(rule.card for rule, _ in broken)),
        attentions=len(found),
        fusable=len(found) - len(set(_unfused(found, broken))) if judged else 0,
    )


def _rules(engine: Engine) -> "tuple[Rule, ...]":
    match engine:
        case "trt":
            from exporter.lint import trt_attention, trt_limits, trt_shapes, trt_types

            return (*trt_limits.RULES, *trt_types.RULES, *trt_shapes.RULES, *trt_attention.RULES)
        case "trt-rtx":
            from exporter.lint import trt_rtx_rules

            return trt_rtx_rules.RULES
        case "ort":
            from exporter.lint import ort_rules

            return ort_rules.RULES
        case "openvino":
            from exporter.lint import openvino_rules

            return openvino_rules.RULES


def _unfused(found: "tuple[Attention, ...]", broken: "list[tuple[Rule, Breach]]") -> Iterator[int]:
    places = [id(breach.at) for rule, breach in broken if rule.attention]
    return (index for index, site in enumerate(found) if id(site.node) in places)


def _finding(rule: "Rule", breach: "Breach") -> Finding:
    from exporter.lint.graph_facts import label

    return Finding(
        rule=rule.card.id,
        severity=rule.card.severity,
        node=label(breach.at),
        operator="" if isinstance(breach.at, str) else breach.at.op_type,
        expected=breach.expected,
        got=breach.got,
        fix=breach.fix,
    )
