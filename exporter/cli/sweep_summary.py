"""Results of `sweep`: a table of points and the front for people, `sweep.json` for scripts."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from exporter.cli.terminal import figures, say
from exporter.errors import GateError
from exporter.records import canonical_json
from exporter.sweep import PointResult, Solution, SweepRecord


def record_tree(folder: Path, record: SweepRecord) -> dict[str, Any]:
    """The content of `sweep.json`, and where it is."""
    return {"sweep": str(folder), **json.loads(canonical_json(record))}


def failed_status(record: SweepRecord) -> int:
    """That of a goal that was not reached, or the worst one of the points that failed; 0 if all is well."""
    if record.solution is not None:
        return 0 if record.solution.reached else GateError.exit_status
    return max((result.failure.exit_status for result in record.points if result.failure), default=0)


def failed_line(record: SweepRecord) -> str:
    """What was not reached; or how many points failed, and why the first one did."""
    if record.solution is not None:
        return f"error: sweep: {record.solution.explanation}"
    failed = [(result.name, result.failure.error) for result in record.points if result.failure]
    name, error = failed[0]
    return (
        f"error: sweep: {len(failed)} of {len(record.points)} points failed, {name}: {error} "
        "(the others are done; the same command tries again what failed)"
    )


def print_record(console: Console, model: str, folder: Path, record: SweepRecord) -> None:
    """The points, the front, and the answer if a goal was set; `model` is as the user named it."""
    headings = (
        *("point", "tokens", "GMACs", "top-1", "difference"),
        *("agreement", f"{record.counted}/s", "over dense engine", "front"),
    )
    table = figures(f"{record.model}: {record.data or 'quality not measured'}", headings, ("point",))
    for result in record.points:
        table.add_row(*_row(result, on_front=result.name in record.front))
    console.print(table)
    for result in record.points:
        if result.failure is not None:
            say(console, f"failed: {result.name}: {result.failure.error}", "yellow")
    for note in record.notes:
        say(console, f"note: {note}", "yellow")
    if record.solution is not None:
        _print_solution(console, model, record, record.solution)
    say(console, f"sweep {folder}")


def _row(result: PointResult, *, on_front: bool) -> tuple[str, ...]:
    quality, speedup = result.quality, result.speedup
    tokens = result.tokens
    return (
        result.name,
        f"{tokens[0]} to {tokens[-1]}" if tokens else "",
        f"{result.gmacs_executed:.4g}" if result.gmacs_executed is not None else "",
        f"{quality.accuracy.top1:.2f} %" if quality.accuracy else "",
        f"{quality.difference.top1:+.2f}" if quality.difference else "",
        f"{quality.fidelity.top1_agreement:.2f} %"
        if quality.fidelity and quality.fidelity.top1_agreement is not None
        else "",
        f"{result.images_per_s:.1f}" if result.images_per_s is not None else "",
        f"{speedup.value:.2f}x ({speedup.interval[0]:.2f} to {speedup.interval[1]:.2f})" if speedup else "",
        "yes" if on_front else "",
    )


def _print_solution(console: Console, model: str, record: SweepRecord, solution: Solution) -> None:
    say(console, solution.explanation, "bold")
    if solution.best is not None:
        name = solution.best.name
        method = next((each.point.method for each in record.points if each.name == name), "tome")
        again = f"python -m exporter {model} --method {method}"
        schedule = " ".join(f"{option} {counts}" for option, counts in solution.best.lists.items())
        say(console, f"its bundle: bundles/{name}; the same: {again} {schedule}")
