"""Results of `lint`: a table of what an engine objects to, the reason, and its source."""

from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.cli.terminal import say
from exporter.lint import Finding, LintReport

_STYLES = {"error": "red", "warning": "yellow", "note": "cyan"}


def linted_tree(file: str, report: LintReport) -> dict[str, Any]:
    """The one JSON document."""
    return {"file": file, **report.to_tree()}


def print_linted(console: Console, file: str, report: LintReport) -> None:
    """A row per broken rule, with its first place in full; then the reasons; then the counts."""
    if report.findings:
        table = Table(title=Text(f"{file} for {report.engine}"), title_justify="left")
        for heading in ("", "rule", "where", "expected", "got", "what to do"):
            table.add_column(heading, overflow="fold")
        for _, group in groupby(report.findings, key=lambda finding: finding.rule):
            first, *others = group
            table.add_row(*map(Text, _row(first, len(others))), style=_STYLES[first.severity])
        console.print(table)
    for rule in report.rules:
        say(console, f"{rule.id}: {rule.why} ({rule.source.title}, {rule.source.address})")
    say(console, f"{file}: {verdict(report)}")


def verdict(report: LintReport) -> str:
    """The report in one line."""
    counts = ", ".join(
        f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in report.counts.items()
    )
    judged = report.engine in ("trt", "ort") and report.attentions  # the others have no rules of fusion
    fused = f"; attention can be fused in {report.fusable}/{report.attentions} places" if judged else ""
    return f"{report.engine}: {counts}{fused}"


def _row(first: Finding, others: int) -> tuple[str, ...]:
    where = f"{first.node} ({first.operator})" if first.operator else first.node
    more = f" and {others} more" if others else ""
    return first.severity, first.rule, f"{where}{more}", first.expected, first.got, first.fix
