"""The section on speed: contenders, ratios, merge efficiency, warnings, and the machine.

In: the benchmark record, and the manifest of the bundle. Out: a section for `bundle_content`.
"""

import shlex
from collections.abc import Mapping

from exporter.bundle import Manifest
from exporter.records import BenchRecord, ContenderRecord
from exporter.report import number_text as show
from exporter.report.content import (
    Facts,
    IntervalChart,
    Listing,
    Paragraph,
    Part,
    Section,
    Table,
    absent,
    section,
)


def speed_section(record: BenchRecord | None, manifest: Manifest) -> Section:
    """Everything that was timed, on what machine."""
    if record is None:
        return section(
            "Speed", absent(f"Not measured. Run: python -m exporter bench {shlex.quote(manifest.name)}")
        )
    warnings: tuple[Part, ...] = ()
    if record.warnings:
        text = "What makes these figures doubtful:"
        warnings = (Paragraph(text=text, tone="bad"), Listing(items=record.warnings))
    return section(
        "Speed",
        *warnings,
        *_ratios(record),
        *_efficiencies(record),
        *_contenders(record, manifest.counted),
        *_unavailable(record),
        *machine(record.environment),
    )


def _ratios(record: BenchRecord) -> tuple[Part, ...]:
    if not record.ratios:
        return (absent("Ratios: not measured."),)
    chart = IntervalChart(
        title="Times faster, with interval",
        x_label="times faster",
        rows=tuple((f"{row.name}, batch {row.batch}", row.value, row.interval) for row in record.ratios),
        neutral=1.0,
    )
    table = Table(
        caption="Times faster, paired, with bootstrap interval",
        headings=("ratio", "batch", "value", "interval"),
        rows=tuple(
            (row.name, str(row.batch), show.times(row.value), show.times_interval(row.interval))
            for row in record.ratios
        ),
    )
    return (chart, table)


def _efficiencies(record: BenchRecord) -> tuple[Part, ...]:
    if not record.efficiencies and not record.merge_efficiency:
        return (absent("Merge efficiency: not measured."),)
    explanation = Paragraph(
        text="Merge efficiency is the speedup over the dense engine divided by the ratio of executed "
        "multiply-accumulates; at 1.00, merging costs nothing."
    )
    if not record.efficiencies:
        rows = tuple(
            (target, show.significant(value, 3)) for target, value in record.merge_efficiency.items()
        )
        return (explanation, Table(caption="Merge efficiency", headings=("target", "efficiency"), rows=rows))
    table = Table(
        caption="Merge efficiency",
        headings=("engine", "batch", "efficiency", "interval", "ratio of executed MACs"),
        rows=tuple(
            (
                row.name or row.target,
                str(row.batch),
                f"{row.value:.2f}",
                show.times_interval(row.interval),
                show.times(row.macs_ratio),
            )
            for row in record.efficiencies
        ),
    )
    return (explanation, table)


def _contenders(record: BenchRecord, counted: str) -> tuple[Part, ...]:
    if not record.contenders:
        return (absent("Contenders: none ran."),)
    table = Table(
        caption="Latency in ms per call, throughput, memory in MB, and ms to load and for the first call",
        headings=(
            *("contender", "batch", "median", "p90", "p99", "IQR"),
            *(f"{counted}/s", "peak MB", "load", "first"),
        ),
        rows=tuple((row.name, str(row.batch), *_contender_cells(row)) for row in record.contenders),
    )
    return (table,)


def _contender_cells(row: ContenderRecord) -> tuple[str, ...]:
    return (
        *(show.milliseconds(value) for value in (row.median_ms, row.p90_ms, row.p99_ms, row.iqr_ms)),
        show.per_second(row.images_per_s),
        show.megabytes(row.peak_memory_bytes),
        *(show.milliseconds(value) for value in (row.load_ms, row.first_ms)),
    )


def _unavailable(record: BenchRecord) -> tuple[Part, ...]:
    if not record.unavailable:
        return ()
    items = tuple(f"{each.label}: {each.reason}" for each in record.unavailable)
    return (absent("Did not run:"), Listing(items=items))


def machine(environment: Mapping[str, object]) -> tuple[Part, ...]:
    """What the machine was that figures are of."""
    if not environment:
        return (absent("The machine was not recorded."),)
    return (Paragraph(text="Measured on:"), Facts(rows=tuple(show.flat(environment).items())))
