"""The two files of a check: JSON with every sample, and a Markdown page with one table."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporter.benchmark import environment, report_on
from exporter.records import Ratio, to_tree
from tools.gpu.drive import Check, JobResult
from tools.gpu.figures import Row, Verdict

SCHEMA_VERSION = 2
_COLUMNS = (
    "job", "contender", "ms", "p90", "images/s", "over eager fp16", "over own dense", "MAC ratio", "efficiency",
    "MiB", "cosine", "notes",
)  # fmt: skip
_MOST_KERNELS = 10
_LEGEND = (
    "ms: median of single calls on an idle GPU, by CUDA events. Ratios are medians over paired rounds with 95 % "
    "intervals: over the library's own module in eager fp16, and over the contender that differs in merging alone. "
    "Efficiency: that ratio over the ratio of executed MACs. Cosine: the worst image against fp32 eager PyTorch under "
    "the same merging, photos and noise; `along` is the same along the program's own matches, since 16 bits turn "
    "near-ties. `graph`: replayed from a CUDA graph."
)


def to_json(check: Check, verdicts: Sequence[Verdict]) -> str:
    """One document: what each race measured, as `bench.json` has it, and the targets."""
    tree = {
        "schema_version": SCHEMA_VERSION,
        **{key: value for key, value in vars(check).items() if key != "jobs"},
        "jobs": [_job_tree(each) for each in check.jobs],
        "targets": [asdict(each) for each in verdicts],
    }
    return json.dumps(tree, allow_nan=False, indent=1) + "\n"


def page(check: Check, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> str:
    """The whole page."""
    facts = {(job.job.name, name): found for job in check.jobs for name, found in job.facts.items()}
    state = "to the end of the list" if check.finished else "not to the end of the list"
    known = check.machine
    return "\n\n".join([
        "# GPU check",
        f"**{known.get('device')}**, CUDA {known.get('cuda')}, PyTorch {known.get('torch')}.\n\n"
        f"Ran {check.seconds:g} s of {check.budget_s:g} s, {state}.",
        "## Targets\n\n" + _table(
            ("target", "status", "found"), ((each.target, f"**{each.status}**", each.found) for each in verdicts)
        ),
        f"## Figures\n\n{_LEGEND}\n\n"
        + _table(_COLUMNS, (_row(row, facts[row.job.name, row.way.name]) for row in rows)),
        "## What did not run\n\n" + ("\n".join(_missing(check)) or "Everything ran."),
        *(_kernels(*key, found["kernels"]) for key, found in facts.items() if "kernels" in found),
    ]) + "\n"  # fmt: skip


def write(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _job_tree(result: JobResult) -> dict[str, Any]:
    race = result.race
    return {
        "name": result.job.name,
        "model": result.job.model,
        "batch": result.job.batch,
        "reason": result.reason,
        "seconds": result.seconds,
        "facts": result.facts,
        "failed": result.failed,
        "bench": None if race is None else to_tree(report_on(race, environment(race)).record()),
    }


def _row(row: Row, facts: Mapping[str, Any]) -> tuple[str, ...]:
    summary = row.summary
    return (
        row.job.name,
        row.way.name,
        f"{summary.median_ms:.3f}",
        f"{summary.p90_ms:.3f}",
        f"{summary.images_per_s:.0f}",
        _ratio(row.over_baseline),
        _ratio(row.over_dense),
        "" if row.macs_ratio is None else f"{row.macs_ratio:.2f}",
        _ratio(row.efficiency),
        f"{row.peak_memory_bytes / 2**20:.0f}",
        f"{facts['parity']['cosine']:.5f}",
        "; ".join(_notes(facts)),
    )


def _notes(facts: Mapping[str, Any]) -> Iterator[str]:
    along = facts.get("along_own_matches")
    if not (along or facts["parity"])["passed"]:
        yield "cosine below the default for its precision"
    if along:
        yield f"along {along['cosine']:.5f}"
    for key, value in facts.get("engine", {}).items():
        if isinstance(value, str | int) and "attention" in f"{key} {value}":
            yield str(value) if "attention" in str(value) else f"{key} {value}"


def _missing(check: Check) -> Iterator[str]:
    for result in check.jobs:
        if result.reason:
            yield f"- {result.job.name}: {result.reason}"
        raced = result.race.unavailable if result.race is not None else ()
        lost = {**result.failed, **{each.contender.name: each.reason for each in raced}}
        yield from (f"- {result.job.name}, {name}: {reason}" for name, reason in lost.items())


def _kernels(job: str, way: str, kernels: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        (f"`{each['name']}`", f"{each['calls']:g}", f"{each['us']:.1f}", f"{each['share']:.1%}")
        for each in kernels[:_MOST_KERNELS]
    )
    launches, us = (sum(each[key] for each in kernels) for key in ("calls", "us"))
    table = _table(("kernel", "launches", "us", "share"), rows)
    return f"## Kernels: {job}, {way}\n\n{launches:.0f} launches, {us:.0f} us in all.\n\n{table}"


def _ratio(value: Ratio | None) -> str:
    return "" if value is None else f"{value.value:.2f} ({value.interval[0]:.2f}-{value.interval[1]:.2f})"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
