"""The benchmark's result: figures per contender, ratios, merge efficiency, and what to think of them.

In: a `Race`. Out: a `BenchReport`, whose `to_tree` is `bench.json`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporter.benchmark.cautions import cautions_about, cautions_about_ratio
from exporter.benchmark.contender import Contender
from exporter.benchmark.measurement import Measurement, Race, Unavailable
from exporter.benchmark.statistics import Ratio, Summary, efficiency, ratio, summarize

_BLOCK = "block_"


@dataclass(frozen=True, kw_only=True)
class NamedRatio:
    """How many times as fast one contender is as another, `contender / baseline`, at one batch size."""

    contender: str
    baseline: str
    batch: int
    ratio: Ratio

    @property
    def name(self) -> str:
        """As `bench.json` has it."""
        return f"{self.contender} / {self.baseline}"


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Merge efficiency of a reduced engine.

    Attributes:
        contender: its name.
        target: its target.
        batch: images per call.
        ratio: measured speedup over the dense engine, over `macs_ratio`.
        macs_ratio: executed multiply-accumulates of the dense engine over its own.
    """

    contender: str
    target: str
    batch: int
    ratio: Ratio
    macs_ratio: float


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
    ratios: tuple[NamedRatio, ...]
    efficiencies: tuple[Efficiency, ...]
    warnings: tuple[str, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)

    def merge_efficiency(self, own: Collection[str] = ()) -> dict[str, float]:
        """Merge efficiency at the smallest batch size, by target; by contender where a target has several.

        Args:
            own: names of contenders; if there are any, others are left out.
        """
        asked = [each for each in self.efficiencies if not own or each.contender in own]
        smallest = min((each.batch for each in asked), default=0)
        group = [each for each in asked if each.batch == smallest]
        targets = [each.target for each in group]
        return {
            each.target if targets.count(each.target) == 1 else each.contender: each.ratio.value
            for each in group
        }

    def to_tree(self, label: str | None = None) -> dict[str, Any]:
        """The values of `bench.json`.

        Args:
            label: of the bundle that the file is for, where several raced: its engines are listed as its own, with
                their time by block at the smallest batch size.
        """
        own = {
            each.contender.target: each
            for each in reversed(self.measurements)
            if label is not None and each.contender.name == f"{label} {each.contender.target}"
        }
        return {
            "own": {target: each.contender.name for target, each in own.items()},
            "blocks": {target: _block_rows(each) for target, each in own.items() if each.block_ms},
            "contenders": [_contender_tree(each) for each in self.measurements],
            "unavailable": [
                {"name": each.contender.name, "batch": each.contender.batch, "reason": each.reason}
                for each in self.unavailable
            ],
            "ratios": [
                {"name": each.name, "batch": each.batch, **_ratio_tree(each.ratio)} for each in self.ratios
            ],
            "merge_efficiency": self.merge_efficiency([each.contender.name for each in own.values()]),
            "efficiencies": [
                {
                    "name": each.contender,
                    "target": each.target,
                    "batch": each.batch,
                    "macs_ratio": each.macs_ratio,
                    **_ratio_tree(each.ratio),
                }
                for each in self.efficiencies
            ],
            "warnings": list(self.warnings),
            "environment": dict(self.environment),
        }


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


def _named_ratio(one: Measurement, other: Measurement) -> NamedRatio:
    return NamedRatio(
        contender=one.contender.name,
        baseline=other.contender.name,
        batch=one.contender.batch,
        ratio=ratio(one.samples, other.samples),
    )


def _efficiencies(measurements: Sequence[Measurement]) -> Iterator[Efficiency]:
    for one, other in _over_dense_engine(measurements):
        macs_ratio = other.contender.executed_macs / one.contender.executed_macs
        yield Efficiency(
            contender=one.contender.name,
            target=one.contender.target or "",
            batch=one.contender.batch,
            ratio=efficiency(ratio(one.samples, other.samples), macs_ratio),
            macs_ratio=macs_ratio,
        )


def _warnings(race: Race, ratios: Sequence[NamedRatio]) -> Iterator[str]:
    for measurement in race.measurements:
        yield from cautions_about(measurement, len(race.cores))
    for each in ratios:
        yield from cautions_about_ratio(each.name, each.batch, each.ratio)
    for missing in race.unavailable:
        if _is_eager_dense(missing.contender):
            yield f"no-baseline: {missing.contender.label} could not be timed: no ratio compares with it"


def _contender_tree(measurement: Measurement) -> dict[str, Any]:
    contender, launches = measurement.contender, measurement.launches
    summary: Summary = summarize(measurement.samples, contender.batch)
    return {
        "name": contender.name,
        "kind": contender.kind,
        "target": contender.target,
        "reduced": contender.reduced,
        "batch": contender.batch,
        "executed_macs": contender.executed_macs,
        "samples_ms": list(measurement.samples_ms),
        "launches": [
            {
                "load_ms": launch.load_ms,
                "first_ms": launch.first_ms,
                "warm_up_calls": launch.warm_up_calls,
                "settled": launch.settled,
                "other_load": launch.other_load,
                "peak_memory_bytes": launch.peak_memory_bytes,
                "calls": [len(calls) for calls in launch.rounds],
            }
            for launch in launches
        ],
        "median_ms": summary.median_ms,
        "p90_ms": summary.p90_ms,
        "p99_ms": summary.p99_ms,
        "iqr_ms": summary.iqr_ms,
        "images_per_s": summary.images_per_s,
        "peak_memory_bytes": max(launch.peak_memory_bytes for launch in launches),
        "load_ms": float(np.median([launch.load_ms for launch in launches])),
        "first_ms": float(np.median([launch.first_ms for launch in launches])),
        "block_ms": dict(measurement.block_ms),
        "infer_samples_per_sec": contender.batch * 1000 / summary.mean_ms,
        "infer_step_time": summary.mean_ms,
        "infer_batch_size": contender.batch,
    }


def _block_rows(measurement: Measurement) -> list[dict[str, Any]]:
    """What is neither stem nor head, in order."""
    blocks = sorted(label for label in measurement.block_ms if label.startswith(_BLOCK))
    return [{"block": int(label.removeprefix(_BLOCK)), "ms": measurement.block_ms[label]} for label in blocks]


def _ratio_tree(ratio: Ratio) -> dict[str, Any]:
    return {"value": ratio.value, "interval": list(ratio.interval)}
