"""The `bench` command: bundles of one model, raced against each other, their dense engine and PyTorch.

In: one or more bundles; of a ladder, one alone (`ladder_bench`). Out: a `BenchReport`, and `bench.json` in each bundle.
What a race needs and a bundle does not hold (the dense engine, other batch sizes, the eager reference) is built from
the bundle's own recipe, in a temporary folder.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.anatomy import examine
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
from exporter.pipeline.compile import Compiled, compile_engines, targets_here
from exporter.pipeline.ladder_bench import LADDER, race_ladder
from exporter.pipeline.observe import Observer, silent
from exporter.pipeline.origin import plan_bundle, rewritten
from exporter.pipeline.plan import Planned, unguarded
from exporter.pipeline.racing import (
    BenchOptions,
    Subject,
    bundle_subject,
    check_options,
    compiled_subject,
    race_subjects,
    require_speed,
    save_program,
)
from exporter.recipe import Recipe, merging_name, override
from exporter.records import BENCH_FILE, canonical_json
from exporter.reduction import method
from exporter.schedule import plan


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
        observe: receives the progress of every stage.

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
    _check_ladders(bundles, recipes)
    if save:
        for bundle in bundles:
            check_amendable(bundle)
    with _work(bundles[0].path.absolute() if save else None) as work:
        if bundles[0].ladder() is not None:
            labels, report = [LADDER], race_ladder(bundles[0], recipes[0], work, options, observe)
        else:
            first = plan_bundle(bundles[0], recipes[0], observe, values or ())
            planned = [_planned_as(first, recipe) for recipe in recipes]
            labels = _labels(bundles, recipes)
            subjects = _subjects(bundles, planned, work, options, observe)
            report = race_subjects(first, subjects, work, options, observe)
    if save:
        bundles = [
            amend(bundle, {BENCH_FILE: canonical_json(report.record(label))})
            for bundle, label in zip(bundles, labels, strict=True)
        ]
    for recipe, label in zip(recipes, labels, strict=True):
        require_speed(recipe, report, label)
    return Benched(bundles=tuple(bundles), labels=tuple(labels), report=report)


def _planned_as(first: Planned, recipe: Recipe) -> Planned:
    """The model of the first bundle, loaded once, with the recipe and schedule of another one."""
    anatomy, schedule, chosen = first.anatomy, first.schedule, method(recipe.method)
    if anatomy is not None:
        anatomy = examine(first.program.graph_module, chosen.place)
        schedule = plan(recipe.schedule, chosen.limited(anatomy.geometry, recipe.method_options))
    return replace(
        first, recipe=replace(recipe, model=first.recipe.model), anatomy=anatomy, schedule=schedule
    )


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
        taken = (
            manifest.tower,
            manifest.input,
            manifest.layout,
            tuple(each.shape[1:] for each in manifest.inputs),
        )
        return manifest.model, engines, taken

    if len({bundle.path.resolve() for bundle in bundles}) < len(bundles):
        raise UsageError("bench: expected bundles that differ, got the same one twice")
    for bundle in bundles[1:]:
        if model(bundle) != model(bundles[0]):
            raise UsageError(
                f"{bundle.path}: expected the same model, weights, input and targets as {bundles[0].path}, got "
                f"{bundle.manifest.name}; race them one by one"
            )


def _check_ladders(bundles: Sequence[Bundle], recipes: Sequence[Recipe]) -> None:
    """A ladder races against its own engines, and is the only one that needs images."""
    ladders = [bundle for bundle in bundles if bundle.ladder() is not None]
    if ladders and len(bundles) > 1:
        raise UsageError(f"{ladders[0].path}: a ladder is raced against its own engines; race it alone")
    if not ladders and any(recipe.validate.data for recipe in recipes):
        raise UsageError("data: which images are timed decides nothing but for a ladder; leave --data out")


def _subjects(
    bundles: Sequence[Bundle],
    planned: Sequence[Planned],
    work: Path,
    options: BenchOptions,
    observe: Observer,
) -> list[Subject]:
    """Every bundle at every batch size, with a dense form where no bundle is one; what is missing is compiled."""
    subjects: list[Subject] = []
    labels = _labels(bundles, [each.recipe for each in planned])
    all_merge = not any(bundle.manifest.schedule.is_dense for bundle in bundles)
    dense: Compiled | None = None
    for batch in dict.fromkeys(options.batches or (each.recipe.batch for each in planned)):
        at_batch = [_at_batch(each, batch) for each in planned]
        if all_merge:
            if dense is None or not at_batch[0].recipe.dynamic_batch:
                dense = _compiled(at_batch[0].dense, work / f"dense-{batch}", observe)
            subjects.append(compiled_subject(dense, "dense", batch))
        for place, (bundle, each) in enumerate(zip(bundles, at_batch, strict=True)):
            subjects.append(_subject(labels[place], batch, bundle, each, work / f"{place}-{batch}", observe))
    return subjects


def _at_batch(planned: Planned, batch: int) -> Planned:
    recipe = planned.recipe
    return planned if recipe.dynamic_batch else replace(planned, recipe=replace(recipe, batch=batch))


def _subject(
    label: str, batch: int, bundle: Bundle, planned: Planned, folder: Path, observe: Observer
) -> Subject:
    """A bundle as it is, or compiled again where it was made for another batch size; `folder` does not exist yet."""
    fits = bundle.signature.batch in (batch, "batch")
    reduced = not bundle.manifest.schedule.is_dense
    if not fits:
        compiled = _compiled(planned, folder, observe)
        eager = save_program(compiled.program, folder / "eager") if reduced else None
        return compiled_subject(compiled, label, batch, eager)
    if not reduced:
        return bundle_subject(bundle, label, batch)
    program = rewritten(bundle, planned, observe)
    return bundle_subject(bundle, label, batch, save_program(program, folder))


def _compiled(planned: Planned, folder: Path, observe: Observer) -> Compiled:
    """Compiled without gates, for a race only."""
    folder.mkdir()
    plain = replace(planned, recipe=unguarded(planned.recipe))
    return compile_engines(plain, targets_here(plain.recipe), folder, observe)


def _labels(bundles: Sequence[Bundle], recipes: Sequence[Recipe]) -> list[str]:
    """What distinguishes the bundles: method and schedule, else their folders' names, else their whole paths."""
    ways = (
        [merging_name(recipe) for recipe in recipes],
        [bundle.path.name for bundle in bundles],
        [str(bundle.path) for bundle in bundles],
    )
    return next(labels for labels in ways if len(set(labels)) == len(labels))
