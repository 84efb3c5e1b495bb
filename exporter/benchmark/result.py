"""The result of a benchmark: figures per contender, ratios, merge efficiency, and warnings.

In: a `Race`. Out: a `BenchReport`, whose `record` is what `bench.json` holds.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporter.benchmark.cautions import cautions_about, cautions_about_ratio
from exporter.benchmark.contender import Contender
from exporter.benchmark.measurement import Launch, Measurement, Race, Unavailable
from exporter.benchmark.statistics import efficiency, ratio, summarize
from exporter.records import (
    BenchRecord,
    BlockTime,
    ContenderRecord,
    EfficiencyRecord,
    LaunchRecord,
    RatioRecord,
    UnavailableRecord,
)

_BLOCK = "block_"


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Everything that a benchmark says.

    Attributes:
        measurements: the contenders that were timed, with all samples.
        unavailable: the others.
        ratios: each contender over eager dense of its batch size, then each reduced engine over its dense engine.
        efficiencies: of each reduced engine that raced beside its dense engine.
        warnings: each `name: what`.
        environment: where it ran.
    """

    measurements: tuple[Measurement, ...]
    unavailable: tuple[Unavailable, ...]
    ratios: tuple[RatioRecord, ...]
    efficiencies: tuple[EfficiencyRecord, ...]
    warnings: tuple[str, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)

    def merge_efficiency(self, own: Collection[str] = ()) -> dict[str, float]:
        """Merge efficiency at the smallest batch size, by target; by contender where a target has several.

        Args:
            own: names of contenders; if there are any, others are left out.
        """
        asked = [each for each in self.efficiencies if not own or each.name in own]
        smallest = min((each.batch for each in asked), default=0)
        group = [each for each in asked if each.batch == smallest]
        targets = [each.target for each in group]
        return {each.target if targets.count(each.target) == 1 else each.name: each.value for each in group}

    def record(self, label: str | None = None) -> BenchRecord:
        """The content of `bench.json`.

        Args:
            label: of the bundle that the file is for, where several raced: its engines are listed as its own, with
                their time by block at the smallest batch size.
        """
        own = {
            each.contender.target: each
            for each in reversed(self.measurements)
            if each.contender.target is not None and each.contender.form == label
        }
        return BenchRecord(
            own={target: each.contender.name for target, each in own.items()},
            blocks={target: _block_times(each) for target, each in own.items() if each.block_ms},
            contenders=tuple(_contender_record(each) for each in self.measurements),
            unavailable=tuple(
                UnavailableRecord(name=each.contender.name, batch=each.contender.batch, reason=each.reason)
                for each in self.unavailable
            ),
            ratios=self.ratios,
            merge_efficiency=self.merge_efficiency([each.contender.name for each in own.values()]),
            efficiencies=self.efficiencies,
            warnings=self.warnings,
            environment=self.environment,
        )


def report_on(race: Race, environment: Mapping[str, Any]) -> BenchReport:
    """Work out a race's figures.

    Args:
        race: as it ended.
        environment: where it ran, from `environment`.
    """
    pairs = [*_over_eager(race.measurements), *_over_dense_engine(race.measurements)]
    ratios = tuple(_named_ratio(one, other) for one, other in pairs)
    return BenchReport(
        measurements=race.measurements,
        unavailable=race.unavailable,
        ratios=ratios,
        efficiencies=tuple(_efficiencies(race.measurements)),
        warnings=tuple(_warnings(race, ratios)),
        environment=environment,
    )


def _over_eager(measurements: Sequence[Measurement]) -> Iterator[tuple[Measurement, Measurement]]:
    baselines: dict[int, Measurement] = {}
    for each in measurements:
        if _is_eager_dense(each.contender):
            baselines.setdefault(each.contender.batch, each)
    for each in measurements:
        baseline = baselines.get(each.contender.batch)
        if baseline is not None and baseline is not each:
            yield each, baseline


def _over_dense_engine(measurements: Sequence[Measurement]) -> Iterator[tuple[Measurement, Measurement]]:
    for one in measurements:
        for other in measurements:
            if _is_reduced_form(one.contender, other.contender):
                yield one, other


def _is_eager_dense(contender: Contender) -> bool:
    return contender.kind == "module" and not contender.reduced and not contender.cuda_graph


def _is_reduced_form(one: Contender, other: Contender) -> bool:
    """Whether these are a reduced and a dense engine of the same target and batch size."""
    both_engines = one.kind == other.kind == "engine"
    same = (one.target, one.batch) == (other.target, other.batch)
    return both_engines and same and one.reduced and not other.reduced


def _named_ratio(one: Measurement, other: Measurement) -> RatioRecord:
    contender, baseline = one.contender, other.contender
    return RatioRecord.between(
        contender.name, baseline.name, contender.batch, ratio(one.samples, other.samples)
    )


def _efficiencies(measurements: Sequence[Measurement]) -> Iterator[EfficiencyRecord]:
    for one, other in _over_dense_engine(measurements):
        macs_ratio = other.contender.executed_macs / one.contender.executed_macs
        found = efficiency(ratio(one.samples, other.samples), macs_ratio)
        yield EfficiencyRecord(
            name=one.contender.name,
            target=one.contender.target or "",
            batch=one.contender.batch,
            macs_ratio=macs_ratio,
            value=found.value,
            interval=found.interval,
        )


def _warnings(race: Race, ratios: Sequence[RatioRecord]) -> Iterator[str]:
    for measurement in race.measurements:
        yield from cautions_about(measurement, len(race.cores))
    for each in ratios:
        yield from cautions_about_ratio(each)
    for missing in race.unavailable:
        if _is_eager_dense(missing.contender):
            yield f"no-baseline: {missing.contender.label} could not be timed: no ratio compares with it"


def _contender_record(measurement: Measurement) -> ContenderRecord:
    contender, launches = measurement.contender, measurement.launches
    summary = summarize(measurement.samples, contender.batch)
    return ContenderRecord(
        name=contender.name,
        kind=contender.kind,
        target=contender.target,
        reduced=contender.reduced,
        batch=contender.batch,
        executed_macs=contender.executed_macs,
        samples_ms=measurement.samples_ms,
        launches=tuple(map(_launch_record, launches)),
        median_ms=summary.median_ms,
        p90_ms=summary.p90_ms,
        p99_ms=summary.p99_ms,
        iqr_ms=summary.iqr_ms,
        images_per_s=summary.images_per_s,
        peak_memory_bytes=max(launch.peak_memory_bytes for launch in launches),
        load_ms=float(np.median([launch.load_ms for launch in launches])),
        first_ms=float(np.median([launch.first_ms for launch in launches])),
        block_ms=measurement.block_ms,
        infer_samples_per_sec=contender.batch * 1000 / summary.mean_ms,
        infer_step_time=summary.mean_ms,
        infer_batch_size=contender.batch,
    )


def _launch_record(launch: Launch) -> LaunchRecord:
    return LaunchRecord(
        load_ms=launch.load_ms,
        first_ms=launch.first_ms,
        warm_up_calls=launch.warm_up_calls,
        settled=launch.settled,
        other_load=launch.other_load,
        peak_memory_bytes=launch.peak_memory_bytes,
        calls=tuple(map(len, launch.rounds)),
    )


def _block_times(measurement: Measurement) -> tuple[BlockTime, ...]:
    """Of what is neither stem nor head, in order."""
    blocks = sorted(label for label in measurement.block_ms if label.startswith(_BLOCK))
    return tuple(
        BlockTime(block=int(label.removeprefix(_BLOCK)), ms=measurement.block_ms[label]) for label in blocks
    )
