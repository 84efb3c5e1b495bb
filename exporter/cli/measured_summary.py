"""What was measured on images, as lines for people and as keys for scripts."""

from typing import Any

from rich.table import Table

from exporter.errors import quoted
from exporter.pipeline import Measured
from exporter.validation import MATCHED_BY, AccuracyReport, Fidelity, LabelMatch, Retrieval

UNREADABLE_SHOWN = 3
LABELS_SHOWN = 3


def measured_tree(measured: Measured | None) -> dict[str, Any]:
    """The content of `validation.json`, with images per second, which are of this run only."""
    if measured is None:
        return {}
    return {**measured.to_tree(), "images_per_s": dict(measured.images_per_s)}


def add_measured(lines: Table, measured: Measured | None) -> None:
    """Add a line per figure."""
    if measured is None:
        return
    lines.add_row("images", f"{measured.n} of {measured.name}")
    if measured.unreadable:
        shown = "; ".join(f"{each.name}: {each.reason}" for each in measured.unreadable[:UNREADABLE_SHOWN])
        more = len(measured.unreadable) - UNREADABLE_SHOWN
        told = f"{len(measured.unreadable)} left out: {shown}" + (f"; and {more} more" if more > 0 else "")
        lines.add_row("unreadable", told, style="yellow")
    for note in measured.notes:
        lines.add_row("note", note, style="yellow")
    if measured.match is not None:
        lines.add_row("labels", _labels(measured.match))
    for warning in measured.warnings:
        lines.add_row("warning", warning, style="bold yellow")
    if measured.accuracy is not None:
        _add_accuracy(lines, measured.accuracy, str(measured.task))
    if measured.retrieval is not None:
        for name, retrieval in measured.retrieval.retrieval.items():
            lines.add_row(f"retrieval {name}", _recalls(retrieval))
    for name, fidelity in measured.fidelity.items():
        lines.add_row(f"fidelity {name}", _fidelity(fidelity))
    if measured.blocks:
        block, error = max(measured.blocks.items())
        lines.add_row("token error", f"{100 * error:.1f} % of the dense tokens' norm behind block {block}")


def _add_accuracy(lines: Table, report: AccuracyReport, task: str) -> None:
    for name, accuracy in report.accuracy.items():
        told = f"{accuracy.top1:.2f} % top-1, {accuracy.top5:.2f} % top-5"
        if name in report.difference:
            low, high = report.difference[name].interval
            told += f" ({report.difference[name].top1:+.2f}, 95 % interval {low:+.2f} to {high:+.2f})"
        lines.add_row(
            f"accuracy {name}", told if name in report.difference else f"{told}, eager PyTorch, {task}"
        )


def _labels(match: LabelMatch) -> str:
    """The first few labels with their classes."""
    shown = [
        f"{quoted(each.label, 40)} = {each.index}" + (f" ({quoted(each.name, 40)})" if each.name else "")
        for each in match.classes[:LABELS_SHOWN]
    ]
    more = len(match.classes) - LABELS_SHOWN
    told = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    return f"{len(match.classes)}, matched by {MATCHED_BY[match.matched_by]}: {told}"


def _recalls(retrieval: Retrieval) -> str:
    ways = (("text to image", retrieval.text_to_image), ("image to text", retrieval.image_to_text))
    told = [f"{way} R@1 {each.r1:.1f}, R@5 {each.r5:.1f}, R@10 {each.r10:.1f} %" for way, each in ways]
    return "; ".join(told)


def _fidelity(fidelity: Fidelity) -> str:
    told = [f"cosine {fidelity.cosine_mean:.5f} (least {fidelity.cosine_min:.5f})"]
    if fidelity.top1_agreement is not None:
        told.insert(0, f"top-1 agrees on {fidelity.top1_agreement:.2f} %")
    if fidelity.kl is not None:
        told.append(f"KL {fidelity.kl:.4g}")
    if fidelity.neighbour_overlap is not None:
        told.append(f"{fidelity.neighbour_overlap:.1f} % of nearest neighbours shared")
    if fidelity.not_finite:
        told.append(f"{fidelity.not_finite} outputs not finite")
    return ", ".join(told)
