"""The model that a bundle was built from, loaded again and recognised by its weights.

In: a bundle and its recipe, with whatever the user replaced in it. Out: the recipe with paths that are there, and the
model, planned. Used by every command that compares a bundle's engines with their model.
"""

from collections.abc import Collection
from dataclasses import replace

from exporter.bundle import Bundle
from exporter.errors import WeightsError
from exporter.models import LoadedModel
from exporter.pipeline.observe import Observer
from exporter.pipeline.plan import Planned, plan_export
from exporter.pipeline.whereabouts import located
from exporter.recipe import Recipe


def plan_bundle(
    bundle: Bundle, recipe: Recipe, observe: Observer, given: Collection[str] = ()
) -> tuple[Recipe, Planned]:
    """Load and plan the model of a bundle; its images are made as the bundle says, whatever lies beside the model now.

    Args:
        bundle: opened.
        recipe: the bundle's own, or changed in what it merges.
        observe: told about each stage.
        given: recipe keys that the user replaced.

    Raises:
        ModelUnavailableError: the model is not where it was.
        WeightsError: it has other weights now.
    """
    recipe = located(recipe, bundle.path, given)
    planned = plan_export(recipe, observe)
    check_weights(planned.model, bundle.manifest.model.weights.sha256)
    model = replace(planned.model, preprocess=bundle.preprocess())
    return recipe, replace(planned, model=model)


def check_weights(model: LoadedModel, expected: str | None) -> None:
    """Raise a WeightsError unless the weights hash to what is expected; None expects nothing."""
    if expected is not None and model.weights_sha256 != expected:
        raise WeightsError(
            f"weights: expected the ones that the bundle was built from (sha256 {expected[:12]}...), got "
            f"{model.weights_sha256[:12]}... in {model.source}:{model.id}; name the right model with --model SOURCE, "
            "or its weights file with --weights FILE"
        )
