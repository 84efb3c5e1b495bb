"""The model that a bundle was built from, loaded again, recognised by its weights and by what it computes.

In: a bundle and its recipe, with whatever the user replaced in it. Out: the model, planned, with the recipe whose paths
are there. Used by every command that compares a bundle's engines with their model.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from exporter.bundle import Bundle
from exporter.errors import WeightsError
from exporter.models import LoadedModel
from exporter.pipeline.observe import Observer
from exporter.pipeline.plan import Planned, plan_export
from exporter.pipeline.stage_options import rewrite_options
from exporter.pipeline.whereabouts import located
from exporter.recipe import Recipe
from exporter.records import REDUNDANCY
from exporter.rewrite import RewrittenProgram, rewrite
from exporter.validation import tensors_of

SAME_MODEL_COSINE = 0.999
"""Below this, an output is another model's. The same one on another machine may decide near-ties among tokens
otherwise, which moves outputs by less."""


def plan_bundle(bundle: Bundle, recipe: Recipe, observe: Observer, given: Collection[str] = ()) -> Planned:
    """Load and plan the model of a bundle; its images are made as the bundle says, whatever lies beside the model now.

    Args:
        bundle: opened.
        recipe: the bundle's own, or changed in what it merges.
        observe: receives the progress of every stage.
        given: recipe keys that the user replaced.

    Raises:
        ModelUnavailableError: the model is not where it was.
        WeightsError: it has other weights now.
    """
    recipe = located(recipe, bundle.path, given)
    planned = plan_export(recipe, observe)
    check_weights(planned.model, bundle.manifest.model.weights.sha256)
    model = replace(planned.model, preprocess=bundle.preprocess())
    redundancy = any(each.name == REDUNDANCY for each in bundle.manifest.outputs)
    return replace(planned, model=model, redundancy=redundancy)


def check_weights(model: LoadedModel, expected: str | None) -> None:
    """Raise a WeightsError unless the weights hash to what is expected; None expects nothing."""
    if expected is not None and model.weights_sha256 != expected:
        raise WeightsError(
            f"weights: expected the ones that the bundle was built from (sha256 {expected[:12]}...), got "
            f"{model.weights_sha256[:12]}... in {model.source}:{model.id}; name the right model with --model SOURCE, "
            "or its weights file with --weights FILE"
        )


def rewritten(bundle: Bundle, planned: Planned, observe: Observer) -> RewrittenProgram:
    """Rewrite the model of a bundle again.

    Equal weights with other settings (heads, activation, scale) are another model, which their hash cannot see: the
    program must give the outputs that the bundle recorded for its sample.

    Raises:
        WeightsError: the program computes something else.
    """
    with observe("rewrite"):
        program = rewrite(planned.program, planned.schedule, rewrite_options(planned))
        _check_outputs(bundle, program)
    return program


def _check_outputs(bundle: Bundle, program: RewrittenProgram) -> None:
    sample = bundle.sample()
    results = program(*tensors_of(bundle.signature.inputs_of(sample)))[: program.outputs]
    for record, result in zip(bundle.manifest.outputs, results, strict=True):
        got, expected = (np.asarray(each, np.float64).reshape(-1) for each in (result, sample[record.name]))
        norms = float(np.linalg.norm(got) * np.linalg.norm(expected))
        cosine = float(got @ expected) / norms if norms else float(np.array_equal(got, expected))
        if not cosine >= SAME_MODEL_COSINE:
            raise WeightsError(
                f"model: its weights are those that the bundle was built from, but it computes something else "
                f"(cosine {cosine:.4f} on the bundle's sample): its configuration is another one; name the right model "
                "with --model SOURCE"
            )
