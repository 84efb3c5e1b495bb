"""Sections on quality: accuracy, retrieval, and fidelity to the dense model.

In: the validation record. Out: sections for `bundle_content`.
"""

import shlex

from exporter.records import Fidelity, ValidationRecord
from exporter.report import number_text as show
from exporter.report.content import (
    IntervalChart,
    LineChart,
    Listing,
    Paragraph,
    Part,
    Section,
    Series,
    Table,
    absent,
    section,
)
from exporter.report.patch_maps import patch_map
from exporter.validation import matched_by_text

_MOST_NAMES = 10
_MOST_LABELS = 40


def accuracy_section(record: ValidationRecord | None, name: str) -> Section:
    """Top-1 and top-5 of every contender, and the difference to dense with its interval."""
    title = "Accuracy"
    if record is None or not record.accuracy:
        text = f"Not measured. Run: python -m exporter validate {shlex.quote(name)} --data DIR"
        return section(title, absent(text), *_unreadable(record))
    what = f"{record.task} on {record.data.name}" if record.task else record.data.name
    rows = tuple(
        (contender, show.percent(row.top1), show.percent(row.top5), str(row.n))
        for contender, row in record.accuracy.items()
    )
    table = Table(
        caption=f"Accuracy: {what}", headings=("contender", "top-1", "top-5", record.data.kind), rows=rows
    )
    warnings = tuple(Paragraph(text=f"Warning: {line}.", tone="bad") for line in record.warnings)
    return section(title, *warnings, table, *_differences(record), *_labels(record), *_unreadable(record))


def _differences(record: ValidationRecord) -> tuple[Part, ...]:
    if not record.difference:
        return (absent("No difference to the dense model was worked out."),)
    table = Table(
        caption="Top-1 gained against dense eager on the same images, in points, with 95 % interval",
        headings=("target", "difference", "interval", "p-value"),
        rows=tuple(
            (
                target,
                show.points(row.top1),
                f"{show.points(row.interval[0])} to {show.points(row.interval[1])}",
                show.significant(row.p_value, 3),
            )
            for target, row in record.difference.items()
        ),
    )
    chart = IntervalChart(
        title="Top-1 gained against dense eager, with 95 % interval",
        x_label="points of top-1 gained against dense",
        rows=tuple((target, row.top1, row.interval) for target, row in record.difference.items()),
        neutral=0.0,
    )
    return (chart, table)


def _labels(record: ValidationRecord) -> tuple[Part, ...]:
    """Which class each label was taken for."""
    if not record.labels:
        return ()
    rule = matched_by_text(record.labels_matched_by)
    shown = min(len(record.labels), _MOST_LABELS)
    part = f", the first {shown} of {len(record.labels)}" if shown < len(record.labels) else ""
    table = Table(
        caption=f"Labels and the classes that they were taken for, matched by {rule}{part}",
        headings=("label", "class", "index"),
        rows=tuple((row.label, row.name or "not known", str(row.index)) for row in record.labels[:shown]),
        texts=frozenset((0, 1)),
    )
    return (table,)


def _unreadable(record: ValidationRecord | None) -> tuple[Part, ...]:
    """What was left out of the images."""
    if record is None:
        return ()
    notes = (Listing(items=record.notes),) if record.notes else ()
    unreadable = record.data.unreadable
    if not unreadable:
        return notes
    text = f"{show.count(len(unreadable), 'image')} could not be read and left out:"
    items = [f"{each.name}: {each.reason}" for each in unreadable[:_MOST_NAMES]]
    if len(unreadable) > _MOST_NAMES:
        items.append(f"and {len(unreadable) - _MOST_NAMES} more, named in validation.json")
    return (*notes, Paragraph(text=text, tone="bad"), Listing(items=tuple(items)))


def retrieval_section(record: ValidationRecord | None, name: str) -> Section:
    """Recall both ways, of every contender."""
    title = "Retrieval"
    if record is None or not record.retrieval:
        command = f"python -m exporter validate {shlex.quote(name)} --pairs CSV"
        text = f"Not measured. For a model with two towers, run: {command}"
        return section(title, absent(text))
    sizes = next(iter(record.retrieval.values()))
    rows = tuple(
        (contender, *(show.percent(value) for value in (*row.text_to_image.all, *row.image_to_text.all)))
        for contender, row in record.retrieval.items()
    )
    headings = (
        "contender",
        *(f"{way} R@{k}" for way in ("text to image", "image to text") for k in (1, 5, 10)),
    )
    caption = f"Recall among {show.count(sizes.images, 'image')} and {show.count(sizes.texts, 'text')}"
    return section(title, Table(caption=caption, headings=headings, rows=rows))


def fidelity_section(record: ValidationRecord | None, name: str) -> Section:
    """How close every engine stays to dense eager without labels, and how the error grows over the blocks."""
    title = "Fidelity to the dense model"
    if record is None or not (record.fidelity or record.blocks):
        text = f"Not measured. Run: python -m exporter validate {shlex.quote(name)} --data DIR"
        return section(title, absent(text))
    parts = (
        *_fidelity_table(record),
        *_similarity(record),
        *_patches(record),
        *_block_errors(record),
        *_slots(record),
    )
    return section(title, *parts)


def _similarity(record: ValidationRecord) -> tuple[Part, ...]:
    """How the cosines of pairs of texts correlate with their scores."""
    if not record.similarity:
        return ()
    differences = {
        name: (f"{row.spearman:+.4f}", f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}")
        for name, row in record.similarity_difference.items()
    }
    table = Table(
        caption=f"Spearman correlation of cosines with scores: {record.data.name}",
        headings=("contender", "pairs", "correlation", "against dense", "interval"),
        rows=tuple(
            (name, str(row.n), f"{row.spearman:.4f}", *differences.get(name, ("", "")))
            for name, row in record.similarity.items()
        ),
    )
    return (table,)


def _patches(record: ValidationRecord) -> tuple[Part, ...]:
    """Features of every patch against the dense model's; nothing where the outputs are others."""
    found = record.patches
    if not found:
        return ()
    table = Table(
        caption=f"Features of each patch against dense eager: {record.data.name}",
        headings=("target", "patches", "mean cosine", "least cosine"),
        rows=tuple(
            (
                target,
                str(sum(map(len, row.grid))),
                show.significant(row.mean, 5),
                show.significant(row.least, 5),
            )
            for target, row in found.items()
        ),
    )
    return (table, *(patch_map(target, row) for target, row in found.items()))


def _fidelity_table(record: ValidationRecord) -> tuple[Part, ...]:
    if not record.fidelity:
        return (absent("Outputs against dense eager: not measured."),)
    table = Table(
        caption=f"Outputs against dense eager: {record.data.name}",
        headings=(
            *("target", record.data.kind, "same top-1", "KL, nats", "mean cosine", "least cosine"),
            *("same neighbours", "among", "not finite"),
        ),
        rows=tuple((target, *_fidelity_cells(row)) for target, row in record.fidelity.items()),
    )
    return (table,)


def _fidelity_cells(row: Fidelity) -> tuple[str, ...]:
    return (
        str(row.n),
        show.percent(row.top1_agreement),
        show.significant(row.kl, 3),
        show.significant(row.cosine_mean, 5),
        show.significant(row.cosine_min, 5),
        show.percent(row.neighbour_overlap),
        show.NOT_MEASURED if row.neighbour_n is None else str(row.neighbour_n),
        show.NOT_MEASURED if row.not_finite is None else str(row.not_finite),
    )


def _slots(record: ValidationRecord) -> tuple[Part, ...]:
    """What images need of each block, of a method that keeps another number of tokens of each of them."""
    if not record.slots:
        return ()
    table = Table(
        caption="Tokens that images need in each block",
        headings=("block", "slots", "images", "need more", "the most", "enough for 99.9 %"),
        rows=tuple(
            (
                *map(str, (row.block, row.slots, row.n)),
                show.percent(row.overflow),
                *map(str, (row.most, row.nearly_all)),
            )
            for row in record.slots
        ),
        texts=frozenset(),
    )
    return (table,)


def _block_errors(record: ValidationRecord) -> tuple[Part, ...]:
    if not record.blocks:
        return (absent("Growth of the error over the blocks: not measured."),)
    points = tuple((float(row.block), row.relative_error) for row in record.blocks)
    chart = LineChart(
        title="Error of the tokens after each block, relative to the dense model",
        x_label="block",
        y_label="relative error",
        series=(Series(name="relative error", points=points),),
    )
    table = Table(
        caption="Error after each block, relative to the dense model",
        headings=("block", "tokens", "relative error"),
        rows=tuple(
            (str(row.block), str(row.tokens), show.significant(row.relative_error, 3))
            for row in record.blocks
        ),
        texts=frozenset(),
    )
    return (chart, table)
