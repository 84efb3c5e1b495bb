"""The result of `ladder`: a table of its engines for people, `ladder.json` for scripts."""

from typing import Any

from rich.console import Console

from exporter.cli.terminal import figures, say
from exporter.pipeline import Laddered, cautions
from exporter.records import LadderRecord, kept_by, to_tree


def laddered_tree(laddered: Laddered) -> dict[str, Any]:
    """The content of `ladder.json`, where it is, and what speaks against it."""
    return {
        "bundle": str(laddered.bundle.path),
        **to_tree(laddered.record),
        "warnings": list(cautions(laddered.record)),
    }


def print_laddered(console: Console, laddered: Laddered) -> None:
    """The engines, the certificate, the expected cost, and what else would do."""
    record = laddered.record
    headings = ("engine", "images", "GMACs", "differs alone", "images/s alone")
    table = figures(str(laddered.bundle.path), headings, ("engine",))
    for rung in record.rungs:
        table.add_row(
            rung.name,
            f"{100 * rung.share:.1f} %",
            f"{rung.gmacs:.4g}",
            f"{rung.disagreements} (at most {100 * rung.bound:.2f} %)",
            "" if rung.images_per_s is None else f"{rung.images_per_s:.1f}",
        )
    console.print(table)
    for line in _lines(record):
        console.print(line, highlight=False)
    for line in cautions(record):
        say(console, f"warning: {line}", "yellow")


def _lines(record: LadderRecord) -> list[str]:
    of = record.certificate
    left_out = "".join(
        f", {count} {what}"
        for count, what in ((of.repeated, "repeated"), (of.unreadable, "unreadable"))
        if count
    )
    near = "" if of.cosine is None else f" with a cosine to the dense vector of {of.cosine:g} or more"
    lines = [
        f"agreement{near}: with {100 * of.confidence:g} % confidence at least {100 * (1 - of.bound):.2f} % of images "
        f"like those of {of.data} ({of.disagreements} of {of.images} differ{left_out}); an answer is kept from a "
        f"{kept_by(record.router)} of {record.threshold:.4f} on",
        f"expected multiply-accumulates: {100 * record.macs:.1f} % of dense",
        "best single engine: "
        + (
            "none agrees as much"
            if record.single is None or record.single_macs is None
            else f"{record.single}, {100 * record.single_macs:.1f} % of dense"
        ),
        "routed by file size: "
        + (
            "nothing can be certified"
            if record.by_size is None
            else f"{100 * record.by_size.macs:.1f} % of dense"
        ),
    ]
    if record.timing is not None:
        timing = record.timing
        low, high = timing.speedup.interval
        lines.append(
            f"measured: {timing.images_per_s:.1f} images/s in calls of {timing.images}, {timing.speedup.value:.2f}x "
            f"{record.rungs[-1].name} (95 % interval {low:.2f} to {high:.2f}, in one process)"
        )
    return lines
