"""Prove a bundle again, on the machine that will serve it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle import Bundle, load_bundle
from exporter.errors import BundleError
from exporter.models import ships_images
from exporter.pipeline.accuracy import labelled_images, measure_runners
from exporter.pipeline.observe import Observer, silent
from exporter.pipeline.plan import plan_export
from exporter.pipeline.road import check_weights
from exporter.pipeline.stage_options import tolerances
from exporter.recipe import Recipe, override
from exporter.validation import AccuracyReport, ParityResult, compare, require


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What a validation ends with; `match_agreement` is the manifest's, since the matches are not shipped."""

    bundle: Bundle
    parity: Mapping[str, ParityResult]
    accuracy: AccuracyReport | None


def validate(
    path: str | Path, *, data: str | None = None, weights: str | None = None, observe: Observer = silent
) -> Validated:
    """Check a bundle's files, run its engines on its sample, and measure accuracy where there are labelled images.

    Args:
        path: the bundle.
        data: labelled image folder; None measures on images that ship with the model, if any.
        weights: the dense model's weights file, where the bundle was built from one.
        observe: told about each stage.

    Raises:
        BundleError: a file is damaged.
        ParityError: an engine does not give the eager outputs that the bundle recorded.
    """
    with observe("verify files"):
        bundle = load_bundle(path)
        recipe = bundle.recipe()
    sample = bundle.sample()
    expected = {record.name for record in (*bundle.manifest.inputs, *bundle.manifest.outputs)}
    if set(sample) != expected:
        raise BundleError(
            f"{bundle.path}: sample.npz: expected {', '.join(sorted(expected))}, got {', '.join(sorted(sample))}; "
            "export the bundle again"
        )
    images = sample[bundle.manifest.inputs[0].name]
    parity = {}
    for name in bundle.manifest.artifacts:
        with observe(f"prove {name}") as note:
            got = bundle.runner(name)(images)
            comparisons = {
                f"sample/{output}": compare(array, sample[output]) for output, array in got.items()
            }
            parity[name] = ParityResult(comparisons=comparisons, tolerances=tolerances(recipe))
            require(parity[name], name)
            note(f"max error {parity[name].max_abs_error:.1e}")
    accuracy = _measure_bundle(bundle, recipe, data, weights, observe)
    return Validated(bundle=bundle, parity=parity, accuracy=accuracy)


def _measure_bundle(
    bundle: Bundle, recipe: Recipe, data: str | None, weights: str | None, observe: Observer
) -> AccuracyReport | None:
    given = {"accuracy.data": data, "weights": weights}
    recipe = override(recipe, {key: value for key, value in given.items() if value is not None})
    if data is None and not ships_images(recipe.model):
        return None
    planned = plan_export(recipe, observe)
    check_weights(planned.model, bundle.manifest.model.weights.sha256)
    images = labelled_images(recipe, planned.model)
    assert images is not None
    runners = {name: bundle.runner(name) for name in bundle.manifest.artifacts}
    return measure_runners(recipe, planned, runners, images, observe)
