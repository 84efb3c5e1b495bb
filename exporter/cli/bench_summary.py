"""Results of `bench`: a table per batch size for people, `bench.json` for scripts."""

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from exporter.benchmark import BenchReport, Contender, Measurement, summarize
from exporter.cli.terminal import figures, say
from exporter.pipeline import Benched
from exporter.records import to_tree


def benched_tree(benched: Benched) -> dict[str, Any]:
    """The content of `bench.json`, and which bundles it is of; of several, what is each one's own by its label."""
    bundles = [str(bundle.path) for bundle in benched.bundles]
    trees = {label: to_tree(benched.report.record(label)) for label in benched.labels}
    if len(trees) == 1:
        return {"bundles": bundles, **trees[benched.labels[0]]}
    each = {key: {label: tree[key] for label, tree in trees.items()} for key in ("own", "blocks")}
    return {"bundles": bundles, **to_tree(benched.report.record()), **each}


def print_benched(console: Console, benched: Benched) -> None:
    """Times, ratios, merge efficiency, and every warning."""
    report = benched.report
    counted = next((bundle.manifest.counted for bundle in benched.bundles), "images")
    for batch in dict.fromkeys(each.contender.batch for each in report.measurements):
        console.print(_table(report, batch, counted))
    for each in report.efficiencies:
        low, high = each.interval
        console.print(
            f"merge efficiency of {each.name}, batch {each.batch}: {each.value:.3f} "
            f"({low:.3f} to {high:.3f}; the arithmetic promises {each.macs_ratio:.2f}x)"
        )
    for missing in report.unavailable:
        say(console, f"not timed: {missing.contender.label}: {missing.reason}", "yellow")
    for warning in report.warnings:
        say(console, f"warning: {warning}", "yellow")


def add_speed(lines: Table, report: BenchReport) -> None:
    """Add a line for each reduced engine, with what it is faster than, and one that counts the warnings."""
    for each in report.efficiencies:
        contender = next(
            found.contender for found in report.measurements if found.contender.name == each.name
        )
        over_engine, over_eager = (_ratio(report, contender, over_engine=engine) for engine in (True, False))
        eager = f", {over_eager} eager PyTorch" if over_eager else ""
        lines.add_row(f"speed {each.target}", f"{over_engine} its dense engine{eager} (95 % intervals)")
    for missing in report.unavailable:
        lines.add_row("not timed", f"{missing.contender.label}: {missing.reason}", style="yellow")
    kinds = Counter(warning.partition(":")[0] for warning in report.warnings)
    if kinds:
        counted = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        lines.add_row("timing warnings", f"{counted}; see bench.json", style="yellow")


def _table(report: BenchReport, batch: int, counted: str) -> Table:
    headings = (
        "contender",
        "median ms",
        "p90 ms",
        f"{counted}/s",
        "peak MiB",
        "over eager dense",
        "over dense engine",
    )
    table = figures(f"batch {batch}", headings, ("contender",))
    for each in report.measurements:
        if each.contender.batch == batch:
            table.add_row(*_row(report, each))
    return table


def _row(report: BenchReport, measurement: Measurement) -> tuple[str, ...]:
    contender = measurement.contender
    summary = summarize(measurement.samples, contender.batch)
    peak = max(launch.peak_memory_bytes for launch in measurement.launches)
    return (
        contender.name,
        f"{summary.median_ms:.2f}",
        f"{summary.p90_ms:.2f}",
        f"{summary.images_per_s:.1f}",
        f"{peak / 2**20:.0f}",
        _ratio(report, contender, over_engine=False),
        _ratio(report, contender, over_engine=True),
    )


def _ratio(report: BenchReport, contender: Contender, *, over_engine: bool) -> str:
    """Over the dense engine, whatever it is called, or over eager PyTorch."""
    engines = {each.contender.name for each in report.measurements if each.contender.kind == "engine"}
    for each in report.ratios:
        same = (each.contender, each.batch) == (contender.name, contender.batch)
        if same and (each.baseline in engines) == over_engine:
            low, high = each.interval
            return f"{each.value:.2f}x ({low:.2f} to {high:.2f})"
    return ""
