"""The two files of a check: JSON with every sample, and a Markdown page with one table."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from exporter.benchmark import summarize
from tools.gpu.drive import Check, Result
from tools.gpu.figures import Row, rows, verdicts

SCHEMA_VERSION = 3
_COLUMNS = (
    "contender", "ms", "p90", "images/s", "over library fp16", "over own dense", "MAC ratio", "efficiency", "cosine",
    "max error", "error/spread", "",
)  # fmt: skip
_LEGEND = (
    "ms: median of single calls on an idle GPU, by CUDA events, one contender after the other; `graph`: replayed from "
    "a CUDA graph. Ratios are of medians: over the library's own module in eager fp16, and over the contender that "
    "differs in merging alone. Efficiency: that ratio over the ratio of executed MACs. Cosine (of the worst image) and "
    "errors: against the same program in fp32 by the plain operators, with the same random weights, on this device; "
    "error/spread is the error over how much images differ, and **WRONG** is more of it than rounding explains."
)
_GROUPS = ("products", "attention", "merging", "rest")
_MOST_KERNELS = 12


def to_json(check: Check) -> str:
    """One document: the machine, every sample, every kernel, the targets."""
    tree = {
        "schema_version": SCHEMA_VERSION,
        "machine": check.machine,
        "prepared_with": {"torch": check.plan.torch},
        "budget_s": check.budget_s,
        "seconds": check.seconds,
        "contenders": [_tree(each) for each in check.results],
        "targets": [vars(each) for each in verdicts(rows(check.results))],
    }
    return json.dumps(tree, allow_nan=False, indent=1) + "\n"


def page(check: Check) -> str:
    """The whole page."""
    known, found = check.machine, rows(check.results)
    targets = ((each.target, f"**{each.status}**", each.found) for each in verdicts(found))
    return "\n\n".join([
        "# GPU check",
        f"**{known.get('device')}**, CUDA {known.get('cuda')}, PyTorch {known.get('torch')}.\n\n"
        f"{check.seconds:g} s of {check.budget_s:g} s; {len(found)} of {len(check.results)} contenders timed.",
        "## Targets\n\n" + _table(("target", "status", "found"), targets),
        f"## Figures\n\n{_LEGEND}\n\n" + _table(_COLUMNS, map(_row, found)),
        "## What was not timed\n\n" + ("\n".join(_missing(check)) or "Everything was."),
        *(_kernels(row.result) for row in found if "kernels" in row.result.facts),
    ]) + "\n"  # fmt: skip


def _tree(result: Result) -> dict[str, Any]:
    contender = result.entry.contender
    tree: dict[str, Any] = {
        "name": contender.name,
        **vars(contender),
        "executed_macs": result.entry.executed_macs,
        "reason": result.reason,
        "seconds": result.seconds,
        "facts": result.facts,
    }
    if result.rounds:
        tree["summary"] = vars(summarize([result.rounds], contender.batch))
        tree["samples_ms"] = result.rounds
    return tree


def _row(row: Row) -> tuple[str, ...]:
    facts = row.result.facts
    return (
        row.result.entry.contender.name,
        f"{row.summary.median_ms:.3f}",
        f"{row.summary.p90_ms:.3f}",
        f"{row.summary.images_per_s:.0f}",
        _number(row.over_library, ".2f"),
        _number(row.over_dense, ".2f"),
        _number(row.macs_ratio, ".2f"),
        _number(row.efficiency, ".2f"),
        _number(facts.get("cosine"), ".5f"),
        _number(facts.get("max_abs_error"), ".2g"),
        _number(facts.get("deviation"), ".3f"),
        "; ".join(_notes(row)),
    )


def _notes(row: Row) -> Iterator[str]:
    if not row.right:
        yield "**WRONG**"
    if not row.result.facts.get("settled", True):
        yield "not settled"
    if "kernels_failed" in row.result.facts:
        yield f"kernels not listed: {row.result.facts['kernels_failed']}"


def _missing(check: Check) -> Iterator[str]:
    for result in check.results:
        if result.reason:
            yield f"- {result.entry.contender.name}: {result.reason}"


def _kernels(result: Result) -> str:
    """Microseconds by block and group, then the longest kernels of all blocks."""
    kernels: Sequence[Mapping[str, Any]] = result.facts["kernels"]
    blocks = list(dict.fromkeys(each["block"] for each in kernels))
    table = (
        (block, *(_sums([each for each in kernels if (each["block"], each["group"]) == (block, group)])
                  for group in _GROUPS))
        for block in blocks
    )  # fmt: skip
    whole = ("all", *(_sums([each for each in kernels if each["group"] == group]) for group in _GROUPS))
    names = dict.fromkeys(each["name"] for each in kernels)
    summed = {name: [each for each in kernels if each["name"] == name] for name in names}
    longest = sorted(summed.items(), key=lambda item: -sum(each["us"] for each in item[1]))[:_MOST_KERNELS]
    return "\n\n".join([
        f"## Kernels: {result.entry.contender.name}",
        "Microseconds (launches) of one call, launched one by one.",
        _table(("block", *_GROUPS), [*table, whole]),
        _table(("kernel", "group", "us (launches)"),
               ((f"`{name}`", found[0]["group"], _sums(found)) for name, found in longest)),
    ])  # fmt: skip


def _sums(kernels: Iterable[Mapping[str, Any]]) -> str:
    found = list(kernels)
    return f"{sum(each['us'] for each in found):.1f} ({sum(each['launches'] for each in found):g})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    whole = [columns, ["---"] * len(columns), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in whole)
