"""From races to figures: latency, throughput, ratios with intervals, merge efficiency, and the targets."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from exporter.benchmark import Measurement, Summary, efficiency, ratio, summarize
from exporter.records import Ratio
from tools.gpu.drive import JobResult
from tools.gpu.jobs import BASELINE, Job, Way

LEAST_EFFICIENCY, LARGE_BATCH = 0.95, 64
LEAST_SPEEDUP = 2.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one contender.

    Attributes:
        job: that it was raced in.
        way: what it is.
        summary: of its calls.
        peak_memory_bytes: at most, over all launches.
        over_baseline: how many times as fast as the library's module in eager fp16.
        over_dense: how many times as fast as the contender that differs in merging alone.
        macs_ratio: executed multiply-accumulates of that dense contender over its own.
    """

    job: Job
    way: Way
    summary: Summary
    peak_memory_bytes: int
    over_baseline: Ratio | None = None
    over_dense: Ratio | None = None
    macs_ratio: float | None = None

    @property
    def efficiency(self) -> Ratio | None:
        """`over_dense` over `macs_ratio`."""
        if self.over_dense is None or self.macs_ratio is None:
            return None
        return efficiency(self.over_dense, self.macs_ratio)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One target.

    Attributes:
        target: what is demanded.
        status: `met` or `missed` by what ran, or `not run`.
        found: the figures that decide.
    """

    target: str
    status: Literal["met", "missed", "not run"]
    found: str


def rows(jobs: Iterable[JobResult]) -> list[Row]:
    """One per timed contender, in the order of the jobs."""
    return [row for result in jobs for row in _rows(result)]


def verdicts(found: Sequence[Row]) -> tuple[Verdict, ...]:
    """The three targets, judged by reduced engines in 16 bits: compiled ones, and programs replayed from a graph."""
    engines = [row for row in found if row.way.merging != "dense" and row.way.is_engine]
    efficiencies = [(row, row.efficiency) for row in engines if row.job.batch >= LARGE_BATCH]
    single = [(row, row.over_dense) for row in engines if row.job.batch == 1]
    speedups = [
        (row, row.over_baseline)
        for row in engines
        if (row.job.model, row.job.batch, row.way.merging) == ("vit_b", 64, "r13")
    ]
    return (
        _verdict(
            f"reduced over dense engine at least {LEAST_EFFICIENCY:.0%} of the ratio of executed MACs, "
            f"batch {LARGE_BATCH} and above",
            efficiencies,
            LEAST_EFFICIENCY,
        ),
        _verdict("never slower than the dense engine, batch 1", single, 1.0),
        _verdict(
            f"at least {LEAST_SPEEDUP:g}x over eager fp16, ViT-B/16, r=13, batch 64",
            speedups,
            LEAST_SPEEDUP,
            best=True,
        ),
    )


def _rows(result: JobResult) -> Iterator[Row]:
    if result.race is None:
        return
    timed = {each.contender.name: each for each in result.race.measurements}
    ways = {way.name: way for way in result.job.ways if way.name in timed}
    baseline = timed.get(BASELINE.name)
    for name, way in ways.items():
        own = timed[name]
        dense = next((timed[each.name] for each in _dense_forms(way, ways.values())), None)
        yield Row(
            job=result.job,
            way=way,
            summary=summarize(own.samples, result.job.batch),
            peak_memory_bytes=max(launch.peak_memory_bytes for launch in own.launches),
            over_baseline=_ratio(own, baseline),
            over_dense=_ratio(own, dense),
            macs_ratio=None if dense is None else dense.contender.executed_macs / own.contender.executed_macs,
        )


def _dense_forms(way: Way, ways: Iterable[Way]) -> Iterator[Way]:
    if way.merging != "dense":
        yield from (each for each in ways if each.is_dense_form_of(way))


def _ratio(own: Measurement, other: Measurement | None) -> Ratio | None:
    return None if other is None or other is own else ratio(own.samples, other.samples)


def _verdict(
    target: str, figures: Sequence[tuple[Row, Ratio | None]], least: float, *, best: bool = False
) -> Verdict:
    """Of all figures, or of the best alone."""
    known = [(row, figure.value) for row, figure in figures if figure is not None]
    if not known:
        return Verdict(target=target, status="not run", found="no engine of this kind was timed")
    row, value = (max if best else min)(known, key=lambda each: each[1])
    met = sum(figure >= least for _, figure in known)
    return Verdict(
        target=target,
        status="met" if value >= least else "missed",
        found=f"{met} of {len(known)} engines; the {'best' if best else 'worst'} {value:.3f}: "
        f"{row.job.name}, {row.way.name}",
    )
