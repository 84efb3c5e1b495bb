"""What each stage gets of a recipe: its own options, never the whole."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from exporter.bundle import SHORTER_FOLDER
from exporter.capture import EXAMPLE_BATCH
from exporter.errors import UsageError
from exporter.models import LoadedModel
from exporter.pipeline.plan import Planned
from exporter.recipe import Recipe
from exporter.records import REDUNDANCY
from exporter.reduction import method
from exporter.rewrite import InsertInputNormalization, RewriteOptions
from exporter.targets import Array, EmitRequest, Signature, TensorSpec
from exporter.validation import (
    TOLERANCES,
    Cases,
    Reference,
    Tolerances,
    image_inputs,
    step_inputs,
    tensor_inputs,
)
from exporter.version import __version__


def rewrite_options(planned: Planned) -> RewriteOptions:
    """Of the plainest program, in fp32."""
    recipe, model = planned.recipe, planned.model
    chosen, proportional = method(recipe.method), recipe.proportional_attention
    return RewriteOptions(
        method=chosen,
        method_options=recipe.method_options,
        proportional=(
            chosen.proportional and model.proportional_attention if proportional is None else proportional
        ),
        dense_outputs=recipe.model.outputs == "dense",
        reduced_outputs=recipe.model.outputs == "reduced",
        redundancy=planned.redundancy,
        normalization=_normalization(recipe, model),
        disabled=frozenset(recipe.disable_passes),
        batch=recipe.batch,
        dynamic_batch=recipe.dynamic_batch,
        learned=planned.learned,
    )


def parity_inputs(planned: Planned) -> Cases:
    """The inputs that parity is verified on."""
    recipe, model = planned.recipe, planned.model
    batch = EXAMPLE_BATCH if recipe.dynamic_batch else recipe.batch
    if model.steps is not None:
        middle, last = model.steps // 2, model.steps - 1
        return step_inputs(model.inputs, batch=batch, steps=recipe.validate.timesteps or (0, middle, last))
    if model.preprocess is None:
        return tensor_inputs(model.inputs, batch=batch)
    (name,) = model.inputs
    cases = image_inputs(
        model.preprocess,
        batch=batch,
        as_bytes=recipe.input == "uint8",
        channels_last=recipe.layout == "nhwc",
    )
    return {case: {name: images} for case, images in cases.items()}


def as_sample(planned: Planned, reference: Reference) -> dict[str, Array]:
    """An input and the eager outputs for it, by the model's own names and the redundancy, inputs first."""
    names = (*planned.model.output_names, *((REDUNDANCY,) if planned.redundancy else ()))
    named: dict[str, Array] = {
        name: output.numpy() for name, output in zip(names, reference.outputs, strict=True)
    }
    return {**reference.inputs, **named}


def tolerances(recipe: Recipe) -> Tolerances:
    """The parity gate: the defaults of the precision, and the recipe's own numbers over them."""
    asked = {key: value for key, value in asdict(recipe.parity).items() if value is not None}
    return replace(TOLERANCES[recipe.precision], **asked)


def emit_request(planned: Planned, sample: Mapping[str, Array]) -> EmitRequest:
    """What every target is asked for; `sample` holds inputs, then outputs. Options are each target's."""
    recipe, model = planned.recipe, planned.model
    batch: int | str = "batch" if recipe.dynamic_batch else recipe.batch
    count = len(model.inputs)
    specs = [
        TensorSpec(name=name, dtype=array.dtype.name, shape=(batch, *array.shape[1:]))
        for name, array in sample.items()
    ]
    return EmitRequest(
        signature=Signature(inputs=tuple(specs[:count]), outputs=tuple(specs[count:])),
        precision=recipe.precision,
        options=None,
        shared_folder=planned.shared_folder or _shared_folder(recipe),
        metadata={
            "exporter": __version__,
            "name": planned.name,
            "source": f"{model.source}:{model.id}",
            "weights_sha256": model.weights_sha256,
            "method": recipe.method,
            "schedule": planned.schedule.requested,
            "merged": ",".join(map(str, planned.schedule.merged)),
            "tokens": ",".join(map(str, planned.schedule.tokens)),
            "preprocess": json.dumps(
                model.preprocess.to_dict() if model.preprocess else None, sort_keys=True
            ),
        },
    )


def _shared_folder(recipe: Recipe) -> str | None:
    """Where the engines for several lengths have their weights: in the folder of the shortest one."""
    lengths = recipe.model.length
    return "/".join((".", *[SHORTER_FOLDER] * (len(lengths) - 1))) if isinstance(lengths, tuple) else None


def _normalization(recipe: Recipe, model: LoadedModel) -> InsertInputNormalization | None:
    if recipe.input == "float":
        return None
    if model.preprocess is None:
        raise UsageError(f"input: expected float, got {recipe.input}: {model.name} {model.why_no_photos}")
    return InsertInputNormalization(
        mean=model.preprocess.mean, std=model.preprocess.std, layout=recipe.layout
    )
