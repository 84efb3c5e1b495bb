"""From rounds to figures: throughput, latency, ratios with intervals, merge efficiency.

A ratio compares round by round, by the same rules as `exporter bench`. All contenders of a job lived in one process, so
an interval holds what differs from round to round, and not what differs from process to process.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.benchmark.statistics import (
    efficiency,
    ratio,
)
from exporter.records import Ratio
from tools.gpu.jobs import BASELINE
from tools.gpu.results import Entry, JobResult, Round


@dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one entry.

    Attributes:
        job: that it was timed in.
        model: its title.
        batch: images per call.
        entry: the entry.
        latency_ms: median of single calls.
        p90_ms: of single calls.
        images_per_s: calls one behind the other; of the median round.
        over_baseline: throughput over the library's module in eager fp16.
        over_dense: throughput over the dense contender of the same kind, precision and replay.
        latency_over_dense: the same for single calls.
        macs_ratio: executed multiply-accumulates of that dense contender over its own.
        efficiency: `over_dense` over `macs_ratio`.
    """

    job: str
    model: str
    batch: int
    entry: Entry
    latency_ms: float
    p90_ms: float
    images_per_s: float
    over_baseline: Ratio | None = None
    over_dense: Ratio | None = None
    latency_over_dense: Ratio | None = None
    macs_ratio: float | None = None
    efficiency: Ratio | None = None

    @property
    def is_reduced(self) -> bool:
        """Whether it merges."""
        return self.entry.merging != "dense"


def rows(jobs: Iterable[JobResult]) -> list[Row]:
    """One per timed entry, in the order of the jobs."""
    return [_row(job, entry) for job in jobs for entry in job.entries if entry.state == "timed"]


def _row(job: JobResult, entry: Entry) -> Row:
    timed = [each for each in job.entries if each.state == "timed"]
    baseline = next((each for each in timed if each.name == BASELINE), None)
    dense = _dense(entry, timed) if entry.merging != "dense" else None
    calls = [each for one in entry.rounds for each in one.latency_ms]
    speedup = macs = None
    if dense is not None:
        speedup, macs = _throughput(entry, dense), dense.executed_macs / entry.executed_macs
    return Row(
        job=job.name,
        model=job.model,
        batch=job.batch,
        entry=entry,
        latency_ms=float(np.median(calls)),
        p90_ms=float(np.quantile(calls, 0.9)),
        images_per_s=job.batch * 1000 / float(np.median([one.window_ms for one in entry.rounds])),
        over_baseline=_throughput(entry, baseline) if baseline is not None else None,
        over_dense=speedup,
        latency_over_dense=_latency(entry, dense) if dense is not None else None,
        macs_ratio=macs,
        efficiency=efficiency(speedup, macs) if speedup is not None and macs is not None else None,
    )


def _dense(entry: Entry, timed: Sequence[Entry]) -> Entry | None:
    """The contender that differs in merging alone; a form is of no account where nothing merges."""
    same = [
        each
        for each in timed
        if each.merging == "dense"
        and (each.kind, each.precision, each.cuda_graph) == (entry.kind, entry.precision, entry.cuda_graph)
        and each.form in ("", entry.form)
    ]
    return max(same, key=lambda each: each.form == entry.form, default=None)


def _throughput(entry: Entry, other: Entry) -> Ratio:
    mine, its = ([[(one.window_ms,)] for one in each.rounds] for each in (entry, other))
    return ratio(mine, its)


def _latency(entry: Entry, other: Entry) -> Ratio:
    """Of the rounds' median calls: a single call on an idle GPU has outliers that no throughput evens out."""
    mine, its = ([[(_median(one),)] for one in each.rounds] for each in (entry, other))
    return ratio(mine, its)


def _median(one: Round) -> float:
    return float(np.median(one.latency_ms))
