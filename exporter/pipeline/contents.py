"""What goes into a bundle beside its engines: sample, recipe, preprocessing, parity and manifest."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from exporter.bundle import (
    ArtifactRecord,
    Manifest,
    ModelRecord,
    ParityRecord,
    ScheduleRecord,
    TensorRecord,
    WeightsRecord,
    write_sample,
)
from exporter.models import LoadedModel
from exporter.pipeline.plan import Planned, bundle_name, gmacs
from exporter.pipeline.toolchain import toolchain
from exporter.recipe import Recipe, portable, recipe_to_yaml
from exporter.rewrite import RewrittenProgram
from exporter.targets import Array, Artifact, EmitRequest, TensorSpec
from exporter.validation import ParityResult, Reference


def as_sample(model: LoadedModel, reference: Reference) -> dict[str, Array]:
    """An input and the eager outputs for it, by the model's own names, the input first."""
    named: dict[str, Array] = {
        name: output.numpy() for name, output in zip(model.output_names, reference.outputs, strict=True)
    }
    return {model.input_name: reference.images, **named}


def write_files(
    folder: Path,
    recipe: Recipe,
    model: LoadedModel,
    sample: Mapping[str, Array],
    parity: Mapping[str, ParityResult],
) -> None:
    """Write everything beside the engines and the manifest into a staged bundle."""
    write_sample(folder, sample)
    (folder / "recipe.yaml").write_text(recipe_to_yaml(portable(recipe)), encoding="utf-8")
    _write_json(folder / "parity.json", {name: _parity_tree(result) for name, result in parity.items()})
    if model.preprocess is not None:
        _write_json(folder / "preprocess.json", model.preprocess.to_dict())


def manifest(
    recipe: Recipe,
    planned: Planned,
    program: RewrittenProgram,
    request: EmitRequest,
    artifacts: Mapping[str, Artifact],
    parity: Mapping[str, ParityResult],
) -> Manifest:
    """What the bundle says about itself; hashes are filled in when it is sealed."""
    model, schedule = planned.model, planned.schedule
    weights = WeightsRecord(kind=model.weights_kind, sha256=model.weights_sha256)
    return Manifest(
        name=bundle_name(recipe, model),
        model=ModelRecord(source=model.source, id=model.id, weights=weights),
        tower=recipe.model.tower,
        method=recipe.method,
        tokens_protected=planned.anatomy.prefix if planned.anatomy else 0,
        schedule=ScheduleRecord(requested=schedule.requested, merged=schedule.merged, tokens=schedule.tokens),
        gmacs=gmacs(planned, program.executed_macs),
        input=recipe.input,
        layout=recipe.layout,
        inputs=(_record(request.input),),
        outputs=tuple(_record(spec) for spec in request.outputs),
        preprocess=model.preprocess.to_dict() if model.preprocess else None,
        passes=tuple(outcome.name for outcome in program.passes),
        artifacts={
            each.target: ArtifactRecord(file=each.file, precision=recipe.precision, opset=each.opset)
            for each in artifacts.values()
        },
        parity={
            key: ParityRecord(
                max_abs_error=result.max_abs_error,
                mean_abs_error=result.mean_abs_error,
                cosine=result.cosine,
                match_agreement=result.match_agreement,
                passed=result.passed,
            )
            for key, result in parity.items()
        },
        notes=schedule.notes,
        toolchain=toolchain(),
    )


def _parity_tree(result: ParityResult) -> dict[str, object]:
    return {**asdict(result), "passed": result.passed}


def _write_json(path: Path, tree: object) -> None:
    path.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _record(spec: TensorSpec) -> TensorRecord:
    return TensorRecord(name=spec.name, dtype=spec.dtype, shape=spec.shape)
