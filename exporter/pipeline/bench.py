"""The `bench` command: bundles of one model, raced against each other, their dense engine and PyTorch.

In: one or more bundles. Out: a `BenchReport`, and `bench.json` in each bundle. What a race needs and a bundle does not
hold (the dense engine, other batch sizes, the eager reference) is built from the bundle's own recipe, in a folder
beside it that goes when the race is over.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.benchmark import BenchReport
from exporter.bundle import (
    BENCH,
    Bundle,
    amend,
    check_amendable,
    load_bundle,
    scratch_beside,
)
from exporter.errors import UsageError
from exporter.pipeline.observe import Observer, silent
from exporter.pipeline.origin import check_program, plan_bundle
from exporter.pipeline.plan import Planned
from exporter.pipeline.racing import (
    BenchOptions,
    Subject,
    check_options,
    dense_recipe,
    engine_files,
    race_subjects,
    require_speed,
    save_program,
    unguarded,
)
from exporter.pipeline.road import build_planned
from exporter.pipeline.stage_options import rewrite_options
from exporter.recipe import Recipe, merging_name, override
from exporter.records import BENCH_FILE, canonical_json
from exporter.rewrite import rewrite
from exporter.schedule import Schedule, ScheduleRequest, plan


@dataclass(frozen=True, kw_only=True)
class Benched:
    """What a benchmark ends with.

    Attributes:
        bundles: with their `bench.json`.
        labels: what the report calls each of them.
        report: of all.
    """

    bundles: tuple[Bundle, ...]
    labels: tuple[str, ...]
    report: BenchReport


def bench(
    paths: Sequence[str | Path],
    options: BenchOptions,
    values: Mapping[str, object] | None = None,
    *,
    save: bool = True,
    observe: Observer = silent,
) -> Benched:
    """Race bundles of one model.

    Args:
        paths: bundles; they differ in what they merge.
        options: how.
        values: recipe keys to replace, such as `bench.min_speedup`, or `model.name` for where the model lies now.
        save: whether to put `bench.json` into the bundles.
        observe: told about each stage.

    Raises:
        UsageError: bundles of different models, or a batch that cannot be.
        BundleError: a file is damaged.
        ModelUnavailableError: the model is not where it was.
        WeightsError: it has other weights now.
        GateError: a bundle's recipe demands more speed; `bench.json` is written all the same.
    """
    check_options(options)
    with observe("verify files") as note:
        bundles = [load_bundle(path) for path in paths]
        note("; ".join(f"{bundle.path}: {line}" for bundle in bundles for line in bundle.notes))
        recipes = [override(bundle.recipe(), values or {}) for bundle in bundles]
    _check_alike(bundles)
    if save:
        for bundle in bundles:
            check_amendable(bundle)
    unmerged = replace(recipes[0], schedule=ScheduleRequest())
    found, planned = plan_bundle(bundles[0], unmerged, observe, values or ())
    recipes = [replace(recipe, model=found.model) for recipe in recipes]
    with _work(bundles[0].path.absolute() if save else None) as work:
        subjects = _subjects(bundles, recipes, planned, work, options, observe)
        report = race_subjects(recipes[0], planned, subjects, work, options, observe)
    labels = _labels(bundles, recipes)
    if save:
        bundles = [
            amend(bundle, {BENCH_FILE: canonical_json(report.record(label))})
            for bundle, label in zip(bundles, labels, strict=True)
        ]
    for recipe, label in zip(recipes, labels, strict=True):
        require_speed(recipe, report, label)
    return Benched(bundles=tuple(bundles), labels=tuple(labels), report=report)


@contextmanager
def _work(beside: Path | None) -> Iterator[Path]:
    """A folder for the race, beside a bundle that is written to anyway, or among the temporary ones."""
    if beside is not None:
        with scratch_beside(beside, BENCH) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory() as place:
            yield Path(place)


def _check_alike(bundles: Sequence[Bundle]) -> None:
    def model(bundle: Bundle) -> tuple[object, ...]:
        manifest = bundle.manifest
        engines = {(target, record.precision) for target, record in manifest.artifacts.items()}
        taken = (manifest.tower, manifest.input, manifest.layout, manifest.inputs[0].shape[1:])
        return manifest.model, engines, taken

    if len({bundle.path.resolve() for bundle in bundles}) < len(bundles):
        raise UsageError("bench: expected bundles that differ, got the same one twice")
    for bundle in bundles[1:]:
        if model(bundle) != model(bundles[0]):
            raise UsageError(
                f"{bundle.path}: expected the same model, weights, input and targets as {bundles[0].path}, got "
                f"{bundle.manifest.name}; race them one by one"
            )


def _subjects(
    bundles: Sequence[Bundle],
    recipes: Sequence[Recipe],
    planned: Planned,
    work: Path,
    options: BenchOptions,
    observe: Observer,
) -> list[Subject]:
    subjects: list[Subject] = []
    labels = _labels(bundles, recipes)
    all_merge = all(any(bundle.manifest.schedule.merged) for bundle in bundles)
    dense: Bundle | None = None
    for batch in dict.fromkeys(options.batches or (recipe.batch for recipe in recipes)):
        at_batch = [recipe if recipe.dynamic_batch else replace(recipe, batch=batch) for recipe in recipes]
        if all_merge:
            if dense is None or not at_batch[0].dynamic_batch:
                folder, unmerged = work / f"dense-{batch}", dense_recipe(at_batch[0])
                dense = build_planned(unmerged, planned, folder, measured=False, observe=observe).bundle
            subjects.append(_subject("dense", batch, dense, None))
        for place, (bundle, recipe) in enumerate(zip(bundles, at_batch, strict=True)):
            folder = work / f"{place}-{batch}"
            subjects.append(_reduced(labels[place], batch, bundle, recipe, planned, folder, observe))
    return subjects


def _reduced(
    label: str, batch: int, bundle: Bundle, recipe: Recipe, planned: Planned, folder: Path, observe: Observer
) -> Subject:
    """A bundle as it is, or built again where it was made for another batch size."""
    scheduled = replace(planned, schedule=_schedule(recipe, planned))
    fits = bundle.manifest.inputs[0].shape[0] in (batch, "batch")
    if not any(bundle.manifest.schedule.merged):
        built = (
            bundle
            if fits
            else build_planned(unguarded(recipe), planned, folder, measured=False, observe=observe).bundle
        )
        return _subject(label, batch, built, None)
    if fits:
        with observe(f"rewrite {label}"):
            program = rewrite(planned.program, scheduled.schedule, rewrite_options(recipe, planned.model))
            check_program(bundle, program)
        return _subject(label, batch, bundle, save_program(program, folder))
    made = build_planned(unguarded(recipe), scheduled, folder, measured=False, observe=observe)
    return _subject(
        label, batch, made.bundle, save_program(made.program, folder.with_name(f"{folder.name}-eager"))
    )


def _schedule(recipe: Recipe, planned: Planned) -> Schedule:
    return planned.schedule if planned.anatomy is None else plan(recipe.schedule, planned.anatomy.geometry)


def _subject(label: str, batch: int, bundle: Bundle, program: Path | None) -> Subject:
    return Subject(
        label=label,
        batch=batch,
        reduced=any(bundle.manifest.schedule.merged),
        executed_macs=round(bundle.manifest.gmacs.executed * 1e9),
        engines=engine_files(bundle),
        program=program,
    )


def _labels(bundles: Sequence[Bundle], recipes: Sequence[Recipe]) -> list[str]:
    """What distinguishes the bundles: method and schedule, else their folders' names, else their whole paths."""
    ways = (
        [merging_name(recipe) for recipe in recipes],
        [bundle.path.name for bundle in bundles],
        [str(bundle.path) for bundle in bundles],
    )
    return next(labels for labels in ways if len(set(labels)) == len(labels))
