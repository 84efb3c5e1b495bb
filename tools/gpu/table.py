"""The Markdown page: machine, targets, one table, what did not run, where the time goes."""

from collections.abc import Iterable, Sequence
from typing import Any

from exporter.records import Ratio
from tools.gpu.figures import Row
from tools.gpu.results import Check, Entry
from tools.gpu.verdicts import Verdict

_COLUMNS = (
    "model", "batch", "contender", "ms", "p90", "images/s", "over eager fp16", "over own dense",
    "MAC ratio", "efficiency", "latency over dense", "MiB", "cosine", "notes",
)  # fmt: skip

_MOST_KERNELS = 10


def page(check: Check, rows: Sequence[Row], targets: Sequence[Verdict]) -> str:
    """The whole page."""
    return "\n\n".join([
        "# GPU check",
        _machine(check),
        "## Targets\n\n" + _table(("target", "status", "found"), map(_target, targets)),
        "## Figures\n\n" + _legend() + "\n\n" + _table(_COLUMNS, map(_row, rows)),
        "## What did not run\n\n" + _missing(check),
        *_kernels(check),
    ]) + "\n"  # fmt: skip


def _machine(check: Check) -> str:
    known = check.machine
    smi = known.get("nvidia_smi") or {}
    packages = known.get("packages", {})
    named = [
        f"{name} {packages[name]}"
        for name in ("exporter", "timm", "transformers", "onnxruntime", "tensorrt", "torch-tensorrt")
        if name in packages
    ]
    facts = [
        f"**{known.get('device', 'unknown device')}**",
        *([f"driver {smi['driver_version']}"] if "driver_version" in smi else []),
        *([f"CUDA {known['cuda']}"] if "cuda" in known else []),
        f"PyTorch {known.get('torch', 'unknown')}",
        *named,
        f"Python {known.get('python', 'unknown')}",
        str(known.get("cpu", "")),
    ]
    state = "to the end of the list" if check.finished else "not to the end of the list"
    return (
        ", ".join(filter(None, facts))
        + f".\n\nRan {check.seconds:g} s of {check.budget_s:g} s, {state}.{_clocks(check)}"
    )


def _clocks(check: Check) -> str:
    """Range of the clock and the power while it ran, where the driver tells."""
    said = [each for job in check.jobs for each in job.clocks]
    mhz = [each["sm_clock_mhz"] for each in said if "sm_clock_mhz" in each]
    watts = [each["power_w"] for each in said if "power_w" in each]
    if not mhz or not watts:
        return ""
    clock, power = (f"{min(each):.0f} to {max(each):.0f}" for each in (mhz, watts))
    return f" SM clock {clock} MHz, power {power} W behind rounds."


def _legend() -> str:
    return (
        "ms and p90: single calls on an idle GPU, by CUDA events. images/s: calls enqueued one behind the other. "
        "Ratios are medians over rounds with 95 % intervals: over the library's own module in eager fp16, and over "
        "the dense contender of the same kind. Efficiency: that ratio over the ratio of executed MACs. Cosine: the "
        "worst image against fp32 eager PyTorch under the same merging, photos and noise; where 16 bits turn a "
        "near-tie, `along` is the same along the program's own matches. `graph`: replayed from a CUDA graph."
    )


def _target(verdict: Verdict) -> tuple[str, ...]:
    return verdict.target, f"**{verdict.status}**", verdict.found


def _row(row: Row) -> tuple[str, ...]:
    facts = row.entry.facts
    memory = facts.get("peak_memory_bytes")
    return (
        row.model,
        str(row.batch),
        row.entry.name,
        f"{row.latency_ms:.3f}",
        f"{row.p90_ms:.3f}",
        f"{row.images_per_s:.0f}",
        _ratio(row.over_baseline),
        _ratio(row.over_dense),
        f"{row.macs_ratio:.2f}" if row.macs_ratio is not None else "",
        _ratio(row.efficiency),
        _ratio(row.latency_over_dense),
        f"{memory / 2**20:.0f}" if memory is not None else "",
        _cosine(row.entry),
        "; ".join(_notes(row.entry)),
    )


def _cosine(entry: Entry) -> str:
    parity = entry.facts.get("parity")
    return f"{parity['cosine']:.5f}" if parity else ""


def _notes(entry: Entry) -> Iterable[str]:
    facts = entry.facts
    parity, matches = facts.get("parity"), facts.get("matches")
    judged = matches["along_own_matches"] if matches else parity
    if judged and not judged["passed"]:
        yield "cosine below the default for its precision"
    if matches:
        yield f"along {matches['along_own_matches']['cosine']:.5f}, matches {matches['agreement']:.1%} equal"
    if facts.get("settled") is False:
        yield "did not settle"
    yield from _engine_notes(facts.get("engine", {}))


def _engine_notes(details: Any) -> Iterable[str]:
    """What an engine says of its attention, however deep it says it."""
    if isinstance(details, dict):
        for key, value in details.items():
            if isinstance(value, str | int) and "attention" in f"{key} {value}":
                yield str(value) if "attention" in str(value) else f"{key} {value}"


def _missing(check: Check) -> str:
    jobs = [f"- {job.name}: {job.reason}" for job in check.jobs if job.reason]
    entries = [
        f"- {job.name}, {entry.name}: {entry.reason}"
        for job in check.jobs
        for entry in job.entries
        if entry.reason and entry.reason != job.reason
    ]
    return "\n".join(jobs + entries) or "Everything ran."


def _kernels(check: Check) -> Iterable[str]:
    listed = [(job, entry) for job in check.jobs for entry in job.entries if entry.kernels]
    for job, entry in listed:
        columns = ("kernel", "launches", "us", "share")
        rows = [
            (f"`{each['name']}`", f"{each['calls']:g}", f"{each['us']:.1f}", f"{each['share']:.1%}")
            for each in entry.kernels[:_MOST_KERNELS]
        ]
        launches, us = (sum(each[key] for each in entry.kernels) for key in ("calls", "us"))
        yield (
            f"## Kernels: {job.model}, batch {job.batch}, {entry.name}\n\n"
            f"{launches:.0f} launches, {us:.0f} us in all.\n\n" + _table(columns, rows)
        )


def _ratio(value: Ratio | None) -> str:
    if value is None:
        return ""
    low, high = value.interval
    return f"{value.value:.2f} ({low:.2f}-{high:.2f})"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
