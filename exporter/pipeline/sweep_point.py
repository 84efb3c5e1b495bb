"""What a sweep does with one point: build and measure it in a process of its own, then time it alone.

In: a base recipe and a `Point`. Out: `Built` and `Timed`, which the sweep's cache keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from exporter.benchmark import BenchReport, Measurement, summarize
from exporter.bundle import load_bundle
from exporter.errors import BundleError, TargetUnavailableError
from exporter.pipeline.choose import with_choices
from exporter.pipeline.compile import targets_here
from exporter.pipeline.export import build_bundle
from exporter.pipeline.material import material
from exporter.pipeline.observe import silent
from exporter.pipeline.plan import Planned, plan_export
from exporter.pipeline.racing import BenchOptions, Subject, bundle_subject, race_subjects
from exporter.recipe import (
    AccuracyGate,
    AgreementGate,
    OverflowGate,
    Recipe,
    SpeedGate,
    override,
    recipe_from_mapping,
    recipe_to_mapping,
)
from exporter.records import Ratio, ValidationRecord
from exporter.sweep import Built, Point, Quality, Store, Timed


@dataclass(frozen=True, kw_only=True)
class BuildPoint:
    """Builds a point's bundle and measures it. Called in worker processes (`sweep_worker`).

    Attributes:
        recipe: model and images; what a point says replaces its keys.
        bundles: folder of the bundles.
        outputs: what the dense model says about the images, computed once; None measures nothing.
    """

    recipe: Recipe
    bundles: Path
    outputs: Path | None

    def as_json(self) -> dict[str, object]:
        """Plain values, for a worker process; `from_json` reads them."""
        return {
            "recipe": recipe_to_mapping(self.recipe),
            "bundles": str(self.bundles),
            "outputs": None if self.outputs is None else str(self.outputs),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote."""
        return cls(
            recipe=recipe_from_mapping(tree["recipe"], "sweep"),
            bundles=Path(tree["bundles"]),
            outputs=None if tree["outputs"] is None else Path(tree["outputs"]),
        )

    def __call__(self, point: Point) -> Built:
        """Write and measure the point's bundle."""
        recipe = point_recipe(self.recipe, point)
        targets = targets_here(recipe)
        planned = with_choices(plan_export(recipe), silent)
        found = None
        if self.outputs is not None:
            found = material(recipe.validate, recipe.model, planned.model, planned.first_output)
        if found is not None:
            found = replace(found, outputs=self.outputs)
        exported = build_bundle(planned, targets, found, self.bundles / point.name, force=True)
        manifest = exported.bundle.manifest
        if point.target not in manifest.parity:
            raise TargetUnavailableError(
                f"target {point.target}: its engine does not run here, and is not measured"
            )
        measured = exported.measured
        quality = Quality() if measured is None else quality_of(measured.record, point.target)
        return Built(
            tokens=manifest.schedule.tokens,
            merged=manifest.schedule.merged,
            gmacs_executed=manifest.gmacs.executed,
            gmacs_ratio=manifest.gmacs.ratio,
            quality=quality,
            digest=manifest.digest,
            notes=(*manifest.notes, *quality_notes(quality)),
        )

    def stands(self, point: Point, built: Built) -> bool:
        """Whether the bundle that was built is still there, unchanged."""
        try:
            return load_bundle(self.bundles / point.name).manifest.digest == built.digest
        except BundleError:
            return False


@dataclass(frozen=True, kw_only=True)
class TimePoint:
    """Times a point's engine beside the dense one of the same target and precision.

    Attributes:
        recipe: as in `BuildPoint`.
        planned: of the model.
        bundles: folder of the bundles.
        work: folder for a race's inputs and logs.
        options: how to race.
        store: of the sweep, where the dense engine's own time is.
    """

    recipe: Recipe
    planned: Planned
    bundles: Path
    work: Path
    options: BenchOptions
    store: Store

    def __call__(self, point: Point) -> Timed:
        """The point's speed.

        Throughput is that of the dense engine, which was timed once, times the paired speedup: points that are timed
        hours apart stay comparable.

        Raises:
            TargetUnavailableError: one of the engines cannot be timed.
        """
        both = dict.fromkeys((point.dense, point))
        subjects = [self._subject(each) for each in both]
        planned = replace(self.planned, recipe=point_recipe(self.recipe, point))
        report = race_subjects(planned, subjects, self.work, self.options, silent)
        if report.unavailable:
            first = report.unavailable[0]
            raise TargetUnavailableError(f"{first.contender.label} cannot be timed: {first.reason}")
        return self._timed(point, report)

    def _subject(self, point: Point) -> Subject:
        label = "dense" if point == point.dense else point.name
        return bundle_subject(load_bundle(self.bundles / point.name), label, self.recipe.batch)

    def _timed(self, point: Point, report: BenchReport) -> Timed:
        measurement = report.measurements[-1]
        summary = summarize(measurement.samples, self.recipe.batch)
        speedup = None if point == point.dense else report.ratios[-1]
        dense = self.store.find(point.dense, "timed").value
        images_per_s = summary.images_per_s
        if speedup is not None and dense is not None:
            images_per_s = dense.images_per_s * speedup.value
        return Timed(
            images_per_s=images_per_s,
            latency_ms=1000 * self.recipe.batch / images_per_s,
            latency_error_ms=_standard_error(measurement),
            batch=self.recipe.batch,
            speedup=None if speedup is None else Ratio(value=speedup.value, interval=speedup.interval),
            peak_memory_bytes=max(launch.peak_memory_bytes for launch in measurement.launches),
            warnings=report.warnings,
        )


def point_recipe(recipe: Recipe, point: Point) -> Recipe:
    """What a point asks for, without the gates of its base."""
    values: dict[str, object] = {
        "name": None,
        "method": point.method,
        "method_options": dict(point.method_options),
        "precision": point.precision,
        "targets": [point.target],
    }
    changed = override(replace(recipe, schedule=point.schedule, method_options={}), values)
    ungated = replace(
        changed.validate, accuracy=AccuracyGate(), agreement=AgreementGate(), overflow=OverflowGate()
    )
    return replace(changed, validate=ungated, bench=SpeedGate())


def quality_of(record: ValidationRecord, target: str) -> Quality:
    """What a sweep keeps of a measurement of one target."""
    return Quality(
        accuracy=record.accuracy.get(target),
        difference=record.difference.get(target),
        fidelity=record.fidelity[target],
    )


def quality_notes(quality: Quality) -> list[str]:
    """Lines about outputs that no figure can be trusted for."""
    fidelity = quality.fidelity
    if fidelity is None or not fidelity.not_finite:
        return []
    return [f"outputs of {fidelity.not_finite} of {fidelity.n} images are not finite"]


def _standard_error(measurement: Measurement) -> float:
    """Of the median, from the medians of the launches."""
    medians = [np.median([each for one in launch.rounds for each in one]) for launch in measurement.launches]
    return float(np.std(medians, ddof=1) / len(medians) ** 0.5)
