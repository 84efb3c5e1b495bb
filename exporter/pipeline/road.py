"""The whole story: a recipe becomes a proven bundle.

load -> capture -> anatomy -> schedule -> rewrite -> emit -> prove -> measure -> benchmark -> bundle

Each stage is one function with one frozen result, which is all that the next one gets.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from exporter.benchmark import BenchReport, EngineFile
from exporter.bundle import TEXT_FOLDER, Bundle, check_out_dir, load_bundle, place_of, seal, stage_bundle
from exporter.errors import ExportError, UsageError
from exporter.graph.nodes import operands, output_node
from exporter.pipeline.contents import Findings, manifest, write_files
from exporter.pipeline.emission import Emission, available, worst
from exporter.pipeline.material import Material, material
from exporter.pipeline.measure import Engines, Measured, measure, require_measured
from exporter.pipeline.observe import Observer, silent
from exporter.pipeline.origin import check_weights
from exporter.pipeline.plan import Planned, bundle_name, plan_export
from exporter.pipeline.racing import (
    BenchOptions,
    Subject,
    dense_recipe,
    engine_files,
    race_subjects,
    require_speed,
    save_program,
)
from exporter.pipeline.stage_options import parity_inputs, rewrite_options
from exporter.pipeline.texts import TextTower
from exporter.recipe import Recipe, check, merging_name, text_recipe
from exporter.rewrite import RewrittenProgram, rewrite
from exporter.schedule import ScheduleRequest, plan
from exporter.targets import Artifact, EmitRequest, Runner
from exporter.validation import require_finite, run_eager


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export ends with: the bundle, and what its summary says beside the manifest.

    Attributes:
        bundle: written.
        program: that its engines compute.
        findings: about them.
        failures: by target, why it is not in the bundle.
        label: what its benchmark calls it.
    """

    bundle: Bundle
    label: str
    program: RewrittenProgram
    findings: Findings
    failures: Mapping[str, ExportError] = field(default_factory=dict)


def export(
    recipe: Recipe, out_dir: str | Path | None = None, *, force: bool = False, observe: Observer = silent
) -> Bundle:
    """Build what a recipe says.

    Args:
        recipe: what to build.
        out_dir: the bundle's folder, `artifacts/<name>` if not given.
        force: replace the bundle that is there.
        observe: told about each stage.

    Raises:
        ExportError: whatever the user can act on; nothing is left behind, and what was there before stays. Where some
            of several targets fail, the bundle is written with the others, and the worst of the failures is raised.
    """
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
    available(recipe)
    if out_dir is not None:
        check_out_dir(out_dir, force)
    planned = plan_export(recipe, observe)
    check_weights(planned.model, weights_sha256)
    folder = Path(out_dir) if out_dir is not None else Path("artifacts") / bundle_name(recipe, planned.model)
    return build_planned(recipe, planned, folder, force=force, observe=observe)


def build_planned(
    recipe: Recipe,
    planned: Planned,
    folder: Path,
    *,
    force: bool = False,
    measured: bool = True,
    outputs: Path | None = None,
    observe: Observer = silent,
) -> Exported:
    """The road from the rewrite on, for a model that is loaded and planned already.

    With `measured` false it ends with the proof: no images, no speed, no gates on them. `outputs` is a store of outputs
    that are known already, such as the dense model's.
    """
    check_out_dir(folder, force)
    engines, missing = available(recipe)
    if measured and recipe.bench.min_speedup is not None and planned.schedule.is_dense:
        raise UsageError(
            "bench.min_speedup: expected a schedule that merges, got a dense one; set schedule.r"
        )
    found = (
        material(recipe.validate, recipe.model, planned.model, first_output(planned)) if measured else None
    )
    with observe("rewrite") as note:
        program = rewrite(planned.program, planned.schedule, rewrite_options(recipe, planned.model))
        note(f"{program.executed_macs / 1e9:.4g} GMACs executed")
    with observe("run eager") as note:
        references = run_eager(program, parity_inputs(recipe, planned.model))
        require_finite(program, references)
        note(", ".join(references))
    with stage_bundle(folder, force) as staging:
        emission = Emission(
            recipe=recipe,
            planned=planned,
            program=program,
            references=references,
            folder=staging,
            observe=observe,
        )
        emitted = emission.emit(engines)
        staged = _Staged(
            recipe=recipe,
            planned=planned,
            program=program,
            request=emission.request(),
            folder=staging,
            observe=observe,
        )
        findings = Findings(
            first=next(iter(references.values())),
            parity=emitted.parity,
            own=emitted.own,
            rounding=emitted.rounding,
            failures={**missing, **emitted.failures},
        )
        if recipe.with_text:
            build(text_recipe(recipe), staging / TEXT_FOLDER, observe=observe)
        if found is not None:
            findings = replace(findings, measured=_measure(staged, emitted.artifacts, found, outputs))
        if measured and recipe.bench.min_speedup is not None:
            findings = replace(findings, bench=_race(staged, emitted.artifacts))
        with observe("bundle") as note:
            write_files(staging, recipe, planned, program, findings)
            seal(staging, manifest(recipe, planned, program, staged.request, emitted.artifacts, findings))
            note(str(folder))
    return Exported(
        bundle=load_bundle(
            folder if folder.exists() else place_of(folder)
        ),  # NEW/../x is a way to x only where NEW exists
        label=merging_name(recipe),
        program=program,
        findings=findings,
        failures=findings.failures,
    )


def first_output(planned: Planned) -> int:
    """Length of the model's first output: its classes, if it has logits."""
    return int(operands(output_node(planned.program.graph_module.graph))[0].meta["val"].shape[-1])


@dataclass(frozen=True, kw_only=True)
class _Staged:
    """A bundle that is being made: what it is made of, and the folder that will become it."""

    recipe: Recipe
    planned: Planned
    program: RewrittenProgram
    request: EmitRequest
    folder: Path
    observe: Observer


def _measure(
    staged: _Staged, artifacts: Mapping[str, Artifact], found: Material, outputs: Path | None
) -> Measured:
    """Measure the engines, in a store that lasts as long as the export, and hold the gates."""
    recipe = staged.recipe
    text = text_engines(load_bundle(staged.folder / TEXT_FOLDER)) if recipe.with_text else {}
    engines = Engines(
        recipe=recipe,
        planned=staged.planned,
        program=staged.program,
        runners={name: artifact.runner for name, artifact in artifacts.items()},
        texts=TextTower(recipe.model, text),
    )
    with tempfile.TemporaryDirectory(dir=staged.folder) as store:
        if outputs is not None:
            shutil.copytree(outputs, store, dirs_exist_ok=True)
        measured = measure(engines, found, Path(store), staged.observe)
    require_measured(recipe.validate, measured.record)
    return measured


def _race(staged: _Staged, artifacts: Mapping[str, Artifact]) -> BenchReport:
    """Race the engines against dense ones, and hold the gate."""
    recipe, planned, program = staged.recipe, staged.planned, staged.program
    assert planned.anatomy is not None
    with tempfile.TemporaryDirectory(dir=staged.folder) as folder:
        work = Path(folder)
        unmerged = replace(planned, schedule=plan(ScheduleRequest(), planned.anatomy.geometry))
        dense = build_planned(
            dense_recipe(recipe), unmerged, work / "dense", measured=False, observe=staged.observe
        )
        subjects = [
            Subject(
                label="dense",
                batch=recipe.batch,
                reduced=False,
                executed_macs=dense.program.executed_macs,
                engines=engine_files(dense.bundle),
            ),
            Subject(
                label=merging_name(recipe),
                batch=recipe.batch,
                reduced=True,
                executed_macs=program.executed_macs,
                engines=_files(staged, artifacts),
                program=save_program(program, work / "eager"),
            ),
        ]
        options = BenchOptions(compiled=False)
        report = race_subjects(recipe, planned, subjects, work, options, staged.observe)
    require_speed(recipe, report, merging_name(recipe))
    return report


def _files(staged: _Staged, artifacts: Mapping[str, Artifact]) -> dict[str, EngineFile]:
    request, given = staged.request, staged.recipe.engines
    return {
        name: EngineFile(
            target=name,
            path=staged.folder / artifact.file,
            input=request.input,
            outputs=request.outputs,
            options=asdict(given[name]) if name in given else {},
        )
        for name, artifact in artifacts.items()
    }


def text_engines(bundle: Bundle) -> dict[str, Runner]:
    """The engines of a bundle by target."""
    return {name: bundle.runner(name) for name in bundle.manifest.artifacts}
