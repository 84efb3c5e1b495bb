"""Measurements on images or texts, as lines for people and as keys for scripts."""

from typing import Any

from rich.table import Table

from exporter.errors import quoted
from exporter.pipeline import Measured
from exporter.records import Fidelity, Retrieval, SlotNeed, ValidationRecord, to_tree
from exporter.validation import matched_by_text

UNREADABLE_SHOWN = 3
LABELS_SHOWN = 3


def measured_tree(measured: Measured | None) -> dict[str, Any]:
    """The content of `validation.json`, with images per second, which are of this run only."""
    if measured is None:
        return {}
    return {**to_tree(measured.record), "images_per_s": dict(measured.images_per_s)}


def add_measured(lines: Table, measured: Measured | None) -> None:
    """Add a line per figure."""
    if measured is None:
        return
    record = measured.record
    lines.add_row(record.data.kind, f"{record.data.n} of {record.data.name}")
    if unreadable := record.data.unreadable:
        shown = "; ".join(f"{each.name}: {each.reason}" for each in unreadable[:UNREADABLE_SHOWN])
        more = len(unreadable) - UNREADABLE_SHOWN
        text = f"{len(unreadable)} left out: {shown}" + (f"; and {more} more" if more > 0 else "")
        lines.add_row("unreadable", text, style="yellow")
    for note in record.notes:
        lines.add_row("note", note, style="yellow")
    if record.labels:
        lines.add_row("labels", _labels(record))
    for warning in record.warnings:
        lines.add_row("warning", warning, style="bold yellow")
    _add_accuracy(lines, record)
    for name, retrieval in record.retrieval.items():
        lines.add_row(f"retrieval {name}", _recalls(retrieval))
    for name, similarity in record.similarity.items():
        text = f"Spearman correlation {similarity.spearman:.4f} on {similarity.n} pairs"
        if name in record.similarity_difference:
            difference = record.similarity_difference[name]
            low, high = difference.interval
            text += f" ({difference.spearman:+.4f}, 95 % interval {low:+.4f} to {high:+.4f})"
        lines.add_row(f"similarity {name}", text)
    for name, fidelity in record.fidelity.items():
        lines.add_row(f"fidelity {name}", _fidelity(fidelity))
    if record.blocks:
        last = record.blocks[-1]
        text = f"{100 * last.relative_error:.1f} % of the dense tokens' norm after block {last.block}"
        lines.add_row("token error", text)
    for need in record.slots:
        lines.add_row(f"slots block {need.block}", _slots(need))


def _add_accuracy(lines: Table, record: ValidationRecord) -> None:
    for name, accuracy in record.accuracy.items():
        text = f"{accuracy.top1:.2f} % top-1, {accuracy.top5:.2f} % top-5"
        if name in record.difference:
            low, high = record.difference[name].interval
            text += f" ({record.difference[name].top1:+.2f}, 95 % interval {low:+.2f} to {high:+.2f})"
        else:
            text += f", eager PyTorch, {record.task}"
        lines.add_row(f"accuracy {name}", text)


def _slots(need: SlotNeed) -> str:
    return (
        f"{need.slots} tokens; {need.overflow:.2f} % of {need.n} images keep more, the most {need.most}; "
        f"{need.nearly_all} are enough for 99.9 %"
    )


def _labels(record: ValidationRecord) -> str:
    """The first few labels with their classes."""
    shown = [
        f"{quoted(each.label, 40)} = {each.index}" + (f" ({quoted(each.name, 40)})" if each.name else "")
        for each in record.labels[:LABELS_SHOWN]
    ]
    more = len(record.labels) - LABELS_SHOWN
    text = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    rule = matched_by_text(record.labels_matched_by)
    return f"{len(record.labels)}, matched by {rule}: {text}"


def _recalls(retrieval: Retrieval) -> str:
    ways = (("text to image", retrieval.text_to_image), ("image to text", retrieval.image_to_text))
    text = [f"{way} R@1 {each.r1:.1f}, R@5 {each.r5:.1f}, R@10 {each.r10:.1f} %" for way, each in ways]
    return "; ".join(text)


def _fidelity(fidelity: Fidelity) -> str:
    text = [f"cosine {fidelity.cosine_mean:.5f} (least {fidelity.cosine_min:.5f})"]
    if fidelity.top1_agreement is not None:
        text.insert(0, f"top-1 agrees on {fidelity.top1_agreement:.2f} %")
    if fidelity.kl is not None:
        text.append(f"KL {fidelity.kl:.4g}")
    if fidelity.neighbour_overlap is not None:
        text.append(f"{fidelity.neighbour_overlap:.1f} % of nearest neighbours shared")
    if fidelity.not_finite:
        text.append(f"{fidelity.not_finite} outputs not finite")
    return ", ".join(text)
