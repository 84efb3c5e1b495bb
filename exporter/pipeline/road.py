"""The whole story: a recipe becomes a proven bundle.

load -> capture -> anatomy -> schedule -> rewrite -> emit -> prove -> measure -> bundle

Each stage is one function with one frozen result, which is all that the next one gets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.bundle import Bundle, check_out_dir, load_bundle, seal, stage_bundle
from exporter.errors import WeightsError
from exporter.models import LoadedModel
from exporter.pipeline.accuracy import labelled_images, measure_runners, require_accuracy
from exporter.pipeline.contents import as_sample, manifest, write_files
from exporter.pipeline.observe import Observer, silent
from exporter.pipeline.plan import bundle_name, plan_export
from exporter.pipeline.stage_options import emit_request, parity_inputs, rewrite_options, tolerances
from exporter.recipe import Recipe, check
from exporter.rewrite import rewrite
from exporter.targets import target
from exporter.validation import AccuracyReport, ParityResult, outputs_along_matches, prove, require, run_eager


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export ends with: the bundle, and what the summary says beside its manifest."""

    bundle: Bundle
    parity: Mapping[str, ParityResult]
    accuracy: AccuracyReport | None


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
        ExportError: whatever the user can act on; nothing is left behind, and what was there before stays.
    """
    return build(recipe, out_dir, force=force, observe=observe).bundle


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
    engines = [target(name, recipe.precision) for name in recipe.targets]
    if out_dir is not None:
        check_out_dir(out_dir, force)
    planned = plan_export(recipe, observe)
    check_weights(planned.model, weights_sha256)
    folder = Path(out_dir) if out_dir is not None else Path("artifacts") / bundle_name(recipe, planned.model)
    check_out_dir(folder, force)
    images = labelled_images(recipe, planned.model)
    with observe("rewrite") as note:
        program = rewrite(planned.program, planned.schedule, rewrite_options(recipe, planned.model))
        note(f"{program.executed_macs / 1e9:.4g} GMACs executed")
    with observe("run eager") as note:
        references = run_eager(program, parity_inputs(recipe, planned.model))
        note(", ".join(references))
    first_name, first = next(iter(references.items()))
    request = emit_request(recipe, planned, as_sample(planned.model, first))
    with stage_bundle(folder, force) as staging:
        artifacts, parity = {}, {}
        for engine in engines:
            with observe(f"emit {engine.name}") as note:
                artifacts[engine.name] = engine.emit(program, request, staging)
                written = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
                note(f"{written / 1e6:.1f} MB")
            with observe(f"prove {engine.name}") as note:
                parity[engine.name] = prove(program, artifacts[engine.name], references, tolerances(recipe))
                require(parity[engine.name], engine.name)
                note(f"max error {parity[engine.name].max_abs_error:.1e}")
            if first_name in parity[engine.name].followed:
                first = replace(first, outputs=outputs_along_matches(program, artifacts[engine.name], first))
        runners = {name: artifact.runner for name, artifact in artifacts.items()}
        accuracy = measure_runners(recipe, planned, runners, images, observe) if images is not None else None
        require_accuracy(recipe, accuracy)
        with observe("bundle") as note:
            write_files(staging, recipe, planned.model, as_sample(planned.model, first), parity)
            seal(staging, manifest(recipe, planned, program, request, artifacts, parity))
            note(str(folder))
    return Exported(bundle=load_bundle(folder), parity=parity, accuracy=accuracy)


def check_weights(model: LoadedModel, expected: str | None) -> None:
    """Raise a WeightsError unless the weights hash to what is expected; None expects nothing."""
    if expected is not None and model.weights_sha256 != expected:
        raise WeightsError(
            f"weights: expected the ones that the bundle was built from (sha256 {expected[:12]}...), got "
            f"{model.weights_sha256[:12]}...; give the right file with --weights FILE"
        )
