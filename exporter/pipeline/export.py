"""The `export` command: a recipe becomes a verified bundle.

load -> capture -> anatomy -> schedule -> choose -> rewrite -> emit -> verify -> measure -> race -> seal

Each stage is one function with one frozen result, which is the next one's only input: `plan_export` gives a `Planned`,
`with_choices` one in which nothing is left open, `compile_engines` a `Compiled`, `measure_compiled` a `Measured`,
`race_against_dense` a `BenchReport`, `seal_bundle` the `Manifest`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exporter.benchmark import BenchReport
from exporter.bundle import (
    SHORTER_FOLDER,
    TEXT_FOLDER,
    Bundle,
    check_out_dir,
    place_of,
    stage_bundle,
    written_bundle,
)
from exporter.errors import ExportError, UsageError
from exporter.pipeline.bundle_files import seal_bundle
from exporter.pipeline.choose import with_choices
from exporter.pipeline.compile import Compiled, Targets, compile_engines, targets_here, worst
from exporter.pipeline.ladder import adaptive_request, ladder
from exporter.pipeline.material import Material, material
from exporter.pipeline.measure import Measured, measure_compiled, require_measured
from exporter.pipeline.measure_texts import measure_texts
from exporter.pipeline.observe import Observer, silent
from exporter.pipeline.origin import check_weights
from exporter.pipeline.plan import Planned, plan_export, shorter
from exporter.pipeline.racing import asks_for_race, race_against_dense
from exporter.pipeline.texts import TextTower
from exporter.recipe import Recipe, check, text_recipe
from exporter.targets import Run, by_length


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The result of an export.

    Attributes:
        bundle: written.
        compiled: its engines; their files are in the bundle now.
        measured: on images, where there were any.
        bench: where a speed was demanded.
        failures: by target, why it is not in the bundle, or not for every length of a text.
    """

    bundle: Bundle
    compiled: Compiled
    measured: Measured | None = None
    bench: BenchReport | None = None
    failures: Mapping[str, ExportError] = field(default_factory=dict)


def export(
    recipe: Recipe, out_dir: str | Path | None = None, *, force: bool = False, observe: Observer = silent
) -> Bundle:
    """Build what a recipe says.

    Args:
        recipe: what to build; an adaptive one gives the bundle of a ladder.
        out_dir: the bundle's folder, `artifacts/<name>` if not given.
        force: replace the bundle that is there.
        observe: receives the progress of every stage.

    Raises:
        ExportError: whatever the user can act on; nothing new stays on the disk, and what was there does. Where some
            of several targets fail, the bundle is written with the others, and the worst of the failures is raised.
    """
    if recipe.adaptive:
        return ladder(adaptive_request(recipe), out_dir, force=force, observe=observe).bundle
    exported = build(recipe, out_dir, force=force, observe=observe)
    if exported.failures:
        raise worst(exported.failures.values())
    return exported.bundle


def build(
    recipe: Recipe,
    out_dir: str | Path | None = None,
    *,
    force: bool = False,
    observe: Observer = silent,
    weights_sha256: str | None = None,
) -> Exported:
    """`export`, with the measurements that its summary shows.

    `weights_sha256` is what the weights must hash to, where the recipe comes out of a bundle.
    """
    check(recipe)
    targets = targets_here(recipe)
    if out_dir is not None:
        check_out_dir(out_dir, force)
    planned = plan_export(recipe, observe)
    check_weights(planned.model, weights_sha256)
    planned = with_choices(planned, observe)
    folder = Path(out_dir) if out_dir is not None else Path("artifacts") / planned.name
    check_out_dir(folder, force)
    if recipe.bench.min_speedup is not None and planned.schedule.is_dense:
        raise UsageError(
            "bench.min_speedup: expected a schedule that merges, got a dense one; set schedule.r"
        )
    found = material(recipe.validate, recipe.model, planned.model, planned.first_output)
    return build_bundle(planned, targets, found, folder, force=force, observe=observe)


def build_bundle(
    planned: Planned,
    targets: Targets,
    found: Material | None,
    folder: Path,
    *,
    force: bool = False,
    observe: Observer = silent,
) -> Exported:
    """Everything after the plan: compile, measure where there are images, race where that is asked, seal."""
    recipe = planned.recipe
    with stage_bundle(folder, force) as staging:
        inner = _build_shorter(recipe, staging, observe)
        compiled = compile_engines(planned, targets, staging, observe)
        text = (
            build(text_recipe(recipe), staging / TEXT_FOLDER, observe=observe) if recipe.with_text else None
        )
        measured = None
        if found is not None and found.texts_alone is not None:
            runners = _by_length(compiled, inner)
            measured = measure_texts(planned, runners, found, observe)
            require_measured(recipe.validate, measured.record)
        elif found is not None:
            tower = TextTower(recipe.model, text.bundle.runners() if text is not None else {})
            measured = measure_compiled(compiled, found, tower, observe)
        bench = race_against_dense(compiled, targets, observe) if asks_for_race(recipe) else None
        with observe("bundle") as note:
            manifest = seal_bundle(compiled, measured, bench)
            note(str(folder))
    # NEW/../x is a path to x only where NEW exists.
    bundle = written_bundle(folder if folder.exists() else place_of(folder), manifest)
    failures = {**(inner.failures if inner is not None else {}), **compiled.failures}
    return Exported(bundle=bundle, compiled=compiled, measured=measured, bench=bench, failures=failures)


def _build_shorter(recipe: Recipe, staging: Path, observe: Observer) -> Exported | None:
    """The bundle of every shorter length that the recipe asks for; first, since its weights are shared."""
    asked = shorter(recipe)
    if asked is None:
        return None
    try:
        return build(asked, staging / SHORTER_FOLDER, observe=observe)
    except ExportError as error:
        raise type(error)(f"length {asked.model.longest}: {error}") from error


def _by_length(compiled: Compiled, inner: Exported | None) -> Mapping[str, Run]:
    """By target, what runs texts on the shortest engine that takes them."""
    shorter = inner.bundle.lengths() if inner is not None else ()
    return {
        name: by_length([*(each.runner(name) for each in shorter if name in each.manifest.artifacts), runner])
        for name, runner in compiled.runners.items()
    }
