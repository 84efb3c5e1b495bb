"""What `bench.json` says, as far as a report shows it.

Where it stands on the road: in, the file that `bench` leaves in a bundle; out, a `BenchmarkRecord` for the section
on speed. Times are in milliseconds per call, memory in bytes, throughput in images per second.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.report.json_view import JsonView, read_json

BENCH_FILE = "bench.json"


@dataclass(frozen=True, kw_only=True)
class ContenderRow:
    """One contender at one batch size; a figure that was not measured is None."""

    name: str
    target: str | None
    batch: int
    reduced: bool
    median_ms: float
    p90_ms: float | None
    p99_ms: float | None
    iqr_ms: float | None
    images_per_s: float | None
    peak_memory_bytes: float | None
    load_ms: float | None
    first_ms: float | None


@dataclass(frozen=True, kw_only=True)
class RatioRow:
    """How many times faster, at one batch size, with its interval."""

    name: str
    batch: int
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class EfficiencyRow:
    """Merge efficiency at one batch size: speedup over the dense engine per ratio of executed multiply-accumulates."""

    name: str
    batch: int
    value: float
    interval: tuple[float, float] | None
    macs_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class BenchmarkRecord:
    """Everything measured in time and memory.

    Attributes:
        contenders: by name and batch size.
        unavailable: (name, reason) of contenders that did not run.
        ratios: the results.
        merge_efficiency: by target, at the smallest batch size.
        efficiencies: by engine (its contender's name, or else its target) and batch size.
        warnings: what makes a ratio doubtful.
        own: names of the contenders that are this bundle's engines; empty where the file does not say.
        block_ms: by target, (block, time) of each block.
        environment: name and text of everything known about the machine.
    """

    contenders: tuple[ContenderRow, ...]
    unavailable: tuple[tuple[str, str], ...]
    ratios: tuple[RatioRow, ...]
    merge_efficiency: Mapping[str, float]
    efficiencies: tuple[EfficiencyRow, ...]
    warnings: tuple[str, ...]
    own: tuple[str, ...]
    block_ms: Mapping[str, Mapping[int, float]]
    environment: Mapping[str, str]

    @property
    def main_ratio(self) -> RatioRow | None:
        """The ratio to remember: of the bundle's own engine, or a reduced one, or else the first one, if any."""
        reduced = [each.name for each in self.contenders if each.reduced and each.target is not None]
        engines = self.own or reduced
        of_engines = [row for row in self.ratios if row.name.partition(" / ")[0] in engines]
        return next(iter([*of_engines, *self.ratios]), None)


def read_benchmark(folder: Path) -> BenchmarkRecord | None:
    """The record in a bundle's folder, or None if nothing was benchmarked.

    Raises:
        BundleError: the file is not what `bench` writes; the line names the key.
    """
    view = read_json(folder / BENCH_FILE)
    if view is None:
        return None
    blocks = view.view("blocks") if view.has("blocks") else None
    return BenchmarkRecord(
        contenders=tuple(_contender(row) for row in view.views("contenders")),
        unavailable=tuple(_unavailable(row) for row in view.views("unavailable")),
        ratios=tuple(_ratio(row) for row in view.views("ratios")),
        merge_efficiency=view.numbers("merge_efficiency"),
        efficiencies=tuple(_efficiency(row) for row in view.views("efficiencies")),
        warnings=view.texts("warnings"),
        own=tuple(view.view("own").text(target) for target in view.view("own").tree)
        if view.has("own")
        else (),
        block_ms={target: _times(blocks, target) for target in blocks.tree} if blocks else {},
        environment=flat(view.view("environment").tree) if view.has("environment") else {},
    )


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """An object as names and texts, one level: inner objects as `outer inner`, lists joined, null as `none`."""
    rows: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows |= flat(value, f"{name} ")
        elif isinstance(value, list):
            rows[name] = ", ".join(map(_text, value)) or "none"
        else:
            rows[name] = _text(value)
    return rows


def _text(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _contender(row: JsonView) -> ContenderRow:
    return ContenderRow(
        name=row.text("name"),
        target=row.text("target") if row.has("target") else None,
        batch=row.integer("batch"),
        reduced=row.flag("reduced"),
        median_ms=row.number("median_ms"),
        p90_ms=row.number_or_none("p90_ms"),
        p99_ms=row.number_or_none("p99_ms"),
        iqr_ms=row.number_or_none("iqr_ms"),
        images_per_s=row.number_or_none("images_per_s"),
        peak_memory_bytes=row.number_or_none("peak_memory_bytes"),
        load_ms=row.number_or_none("load_ms"),
        first_ms=row.number_or_none("first_ms"),
    )


def _unavailable(row: JsonView) -> tuple[str, str]:
    batch = f", batch {row.integer('batch')}" if row.has("batch") else ""
    return f"{row.text('name')}{batch}", row.text("reason")


def _ratio(row: JsonView) -> RatioRow:
    return RatioRow(
        name=row.text("name"),
        batch=row.integer("batch"),
        value=row.number("value"),
        interval=row.interval("interval"),
    )


def _efficiency(row: JsonView) -> EfficiencyRow:
    return EfficiencyRow(
        name=row.text("name") if row.has("name") else row.text("target"),
        batch=row.integer("batch"),
        value=row.number("value"),
        interval=row.interval_or_none("interval"),
        macs_ratio=row.number_or_none("macs_ratio"),
    )


def _times(blocks: JsonView, target: str) -> dict[int, float]:
    return {row.integer("block"): row.number("ms") for row in blocks.views(target)}
