"""The whole story: a recipe becomes a proven bundle.

load -> capture -> anatomy -> schedule -> rewrite -> emit -> prove -> measure -> bundle

Each stage is one function with one frozen result, which is all that the next one gets.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from exporter.anatomy import Anatomy, examine
from exporter.bundle import (
    ArtifactRecord,
    Bundle,
    GmacsRecord,
    Manifest,
    ModelRecord,
    ParityRecord,
    ScheduleRecord,
    TensorRecord,
    WeightsRecord,
    check_out_dir,
    load_bundle,
    seal,
    stage_bundle,
    write_sample,
)
from exporter.capture import EXAMPLE_BATCH, Program, capture, in_precision
from exporter.errors import GateError, UsageError, WeightsError
from exporter.models import LoadedModel, load, shipped_images, ships_images
from exporter.recipe import Recipe, check, default_name, override, portable, recipe_to_yaml
from exporter.reduction import method
from exporter.rewrite import InsertInputNormalization, RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import Schedule, plan
from exporter.targets import Array, Artifact, EmitRequest, Runner, TensorSpec, target
from exporter.validation import (
    TOLERANCES,
    AccuracyReport,
    LabelledImages,
    ParityResult,
    Tolerances,
    compare,
    image_folder,
    image_inputs,
    labelled_arrays,
    measure,
    prove,
    require,
    tensor_inputs,
)

Note = Callable[[str], None]
Observer = Callable[[str], AbstractContextManager[Note]]
"""Called with each stage's name; the context it returns takes one line about the outcome."""

TOOLCHAIN = ("exporter", "torch", "timm", "onnx", "onnxscript", "onnxruntime", "numpy")


def silent(stage: str) -> AbstractContextManager[Note]:
    """An observer that says nothing."""
    return nullcontext(lambda line: None)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What is known before anything is built.

    Attributes:
        model: loaded.
        program: captured.
        anatomy: None for a tower that is exported as it is.
        schedule: merges per block, empty without an anatomy.
    """

    model: LoadedModel
    program: Program
    anatomy: Anatomy | None
    schedule: Schedule


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What a validation ends with; `match_agreement` is the manifest's, since the matches are not shipped."""

    bundle: Bundle
    parity: Mapping[str, ParityResult]
    accuracy: AccuracyReport | None


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

    Args:
        recipe, out_dir, force, observe: as for `export`.
        weights_sha256: what the weights must hash to, where the recipe comes out of a bundle.
    """
    check(recipe)
    targets = [target(name) for name in recipe.targets]
    if out_dir is not None:
        check_out_dir(out_dir, force)
    planned = plan_export(recipe, observe)
    _check_weights(planned.model, weights_sha256)
    folder = Path(out_dir) if out_dir is not None else Path("artifacts") / bundle_name(recipe, planned.model)
    check_out_dir(folder, force)
    images = _labelled_images(recipe, planned.model)
    with observe("rewrite") as note:
        program = rewrite(planned.program, planned.schedule, _rewrite_options(recipe, planned.model))
        note(f"{sum(outcome.rewrites for outcome in program.passes)} rewrites")
    inputs = _parity_inputs(recipe, planned.model)
    request = _emit_request(recipe, planned, program, next(iter(inputs.values())))
    with stage_bundle(folder, force) as staging, tempfile.TemporaryDirectory() as scratch:
        artifacts, parity = {}, {}
        for engine in targets:
            with observe(f"emit {engine.name}") as note:
                artifacts[engine.name] = engine.emit(program, request, staging, Path(scratch))
                note(_size(staging / artifacts[engine.name].file))
            with observe(f"prove {engine.name}") as note:
                parity[engine.name] = prove(program, artifacts[engine.name], inputs, _tolerances(recipe))
                require(parity[engine.name], engine.name)
                note(f"max error {parity[engine.name].max_abs_error:.1e}")
        accuracy = _measure(recipe, planned, artifacts, images, observe)
        _require_accuracy(recipe, accuracy)
        with observe("bundle") as note:
            _write_files(staging, recipe, planned, program, inputs, parity)
            seal(staging, _manifest(recipe, folder.name, planned, program, request, artifacts, parity))
            note(str(folder))
    return Exported(bundle=load_bundle(folder), parity=parity, accuracy=accuracy)


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
    images = next(iter(sample.values()))
    parity = {}
    for name in bundle.manifest.artifacts:
        with observe(f"prove {name}") as note:
            got = bundle.runner(name)(images)
            comparisons = {f"sample/{output}": compare(array, sample[output]) for output, array in got.items()}
            parity[name] = ParityResult(comparisons=comparisons, tolerances=_tolerances(recipe))
            require(parity[name], name)
            note(f"max error {parity[name].max_abs_error:.1e}")
    accuracy = _measure_bundle(bundle, recipe, data, weights, observe)
    return Validated(bundle=bundle, parity=parity, accuracy=accuracy)


def plan_export(recipe: Recipe, observe: Observer = silent, *, strict: bool = True) -> Planned:
    """Load, capture, examine, schedule: everything that `inspect` shows; builds nothing.

    Args:
        recipe: what to plan.
        observe: told about each stage.
        strict: whether an obstacle to merging is an error, or only listed in the anatomy.

    Raises:
        ExportError: the model is not available, not supported, or cannot be scheduled as asked.
    """
    with observe("load") as note:
        model = load(recipe.model)
        note(f"{model.source}:{model.id}, {model.weights_kind} weights")
    with observe("capture") as note:
        example = torch.zeros((EXAMPLE_BATCH, *model.example_input.shape), dtype=model.example_input.dtype)
        program = capture(in_precision(model.module, recipe.precision), example)
        note(f"{len(program.graph_module.graph.nodes)} nodes")
    if recipe.model.tower == "text":
        return Planned(model=model, program=program, anatomy=None, schedule=_as_it_is())
    with observe("plan") as note:
        anatomy = examine(program.graph_module)
        schedule = plan(recipe.schedule, anatomy.geometry)
        if strict:
            anatomy.check_mergeable(schedule.merged)
        note(f"{schedule.tokens[0]} to {schedule.tokens[-1]} tokens")
    return Planned(model=model, program=program, anatomy=anatomy, schedule=schedule)


def bundle_name(recipe: Recipe, model: LoadedModel) -> str:
    """The bundle's name: the recipe's own, or one made of what it asks."""
    return recipe.name or default_name(recipe, model.name)


def gmacs(planned: Planned, executed: int) -> GmacsRecord:
    """The arithmetic of one image: as the method describes it, and as the graph executes it."""
    if planned.anatomy is None:
        return GmacsRecord(dense=executed / 1e9, reduced=executed / 1e9, ratio=1.0, executed=executed / 1e9)
    tokens, workload = planned.schedule.tokens, planned.anatomy.workload
    dense, reduced = workload.macs([tokens[0]] * len(tokens)), workload.macs(tokens)
    return GmacsRecord(dense=dense / 1e9, reduced=reduced / 1e9, ratio=dense / reduced, executed=executed / 1e9)


def toolchain() -> dict[str, str]:
    """Versions of the packages that decide the bytes of an export."""
    versions = {}
    for package in TOOLCHAIN:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


# Options of each stage -------------------------------------------------------------------------------------------------


def _rewrite_options(recipe: Recipe, model: LoadedModel) -> RewriteOptions:
    proportional = recipe.proportional_attention
    return RewriteOptions(
        method=method(recipe.method),
        method_options=recipe.method_options,
        proportional=model.proportional_attention if proportional is None else proportional,
        normalization=_normalization(recipe, model),
        disabled=frozenset(recipe.disable_passes),
        batch=recipe.batch,
        dynamic_batch=recipe.dynamic_batch,
    )


def _normalization(recipe: Recipe, model: LoadedModel) -> InsertInputNormalization | None:
    if recipe.input == "float":
        return None
    if model.preprocess is None:
        raise UsageError(f"input: {model.name} does not say how its images are normalised; expected input float")
    return InsertInputNormalization(mean=model.preprocess.mean, std=model.preprocess.std, layout=recipe.layout)


def _parity_inputs(recipe: Recipe, model: LoadedModel) -> Mapping[str, Array]:
    batch = EXAMPLE_BATCH if recipe.dynamic_batch else recipe.batch
    if model.preprocess is None:
        return tensor_inputs(model.example_input, batch=batch)
    return image_inputs(
        model.preprocess,
        batch=batch,
        as_bytes=recipe.input == "uint8",
        channels_last=recipe.layout == "nhwc",
    )


def _tolerances(recipe: Recipe) -> Tolerances:
    asked = {key: value for key, value in asdict(recipe.parity).items() if value is not None}
    return replace(TOLERANCES[recipe.precision], **asked)


def _emit_request(recipe: Recipe, planned: Planned, program: RewrittenProgram, images: Array) -> EmitRequest:
    results = program(torch.from_numpy(images))[: program.outputs]
    batch: int | str = "batch" if recipe.dynamic_batch else recipe.batch
    model = planned.model

    def spec(name: str, array: Array) -> TensorSpec:
        return TensorSpec(name=name, dtype=array.dtype.name, shape=(batch, *array.shape[1:]))

    return EmitRequest(
        input=spec(model.input_name, images),
        outputs=tuple(spec(name, result.numpy()) for name, result in zip(model.output_names, results, strict=True)),
        metadata={
            "exporter": toolchain().get("exporter", ""),
            "name": bundle_name(recipe, model),
            "source": f"{model.source}:{model.id}",
            "weights_sha256": model.weights_sha256,
            "method": recipe.method,
            "schedule": planned.schedule.requested,
            "merged": ",".join(map(str, planned.schedule.merged)),
            "tokens": ",".join(map(str, planned.schedule.tokens)),
            "preprocess": json.dumps(model.preprocess.to_dict() if model.preprocess else None, sort_keys=True),
        },
    )


def _as_it_is() -> Schedule:
    return Schedule(requested="as it is", merged=(), tokens=())


# Accuracy --------------------------------------------------------------------------------------------------------------


def _labelled_images(recipe: Recipe, model: LoadedModel) -> LabelledImages | None:
    """What accuracy is measured on: the recipe's folder, or images that ship with the model."""
    shipped = shipped_images(model)
    if recipe.accuracy.data is None and recipe.accuracy.max_drop is not None and shipped is None:
        raise UsageError("accuracy: max_drop needs labelled images; give a folder with --data DIR")
    if recipe.accuracy.data is None:
        return labelled_arrays(*shipped) if shipped is not None else None
    if model.output_names[0] != "logits":
        raise UsageError(f"data: {model.name} gives {model.output_names[0]}, and accuracy needs logits")
    return image_folder(Path(recipe.accuracy.data))


def _measure(
    recipe: Recipe,
    planned: Planned,
    artifacts: Mapping[str, Artifact],
    images: LabelledImages | None,
    observe: Observer,
) -> AccuracyReport | None:
    if images is None:
        return None
    runners = {name: artifact.runner for name, artifact in artifacts.items()}
    return _measure_runners(recipe, planned, runners, images, observe)


def _measure_bundle(
    bundle: Bundle, recipe: Recipe, data: str | None, weights: str | None, observe: Observer
) -> AccuracyReport | None:
    given = {"accuracy.data": data, "weights": weights}
    recipe = override(recipe, {key: value for key, value in given.items() if value is not None})
    if data is None and not ships_images(recipe.model):
        return None
    planned = plan_export(recipe, observe)
    _check_weights(planned.model, bundle.manifest.model.weights.sha256)
    images = _labelled_images(recipe, planned.model)
    assert images is not None
    runners = {name: bundle.runner(name) for name in bundle.manifest.artifacts}
    return _measure_runners(recipe, planned, runners, images, observe)


def _measure_runners(
    recipe: Recipe, planned: Planned, runners: Mapping[str, Runner], images: LabelledImages, observe: Observer
) -> AccuracyReport:
    if planned.model.preprocess is None:
        raise UsageError(f"data: {planned.model.name} does not say how images become its input")
    with observe("measure accuracy") as note:
        report = measure(
            images,
            planned.model.preprocess,
            planned.program.graph_module,
            runners,
            as_bytes=recipe.input == "uint8",
            channels_last=recipe.layout == "nhwc",
        )
        note(", ".join(f"{name} {each.top1:.2f} %" for name, each in report.accuracy.items()))
    return report


def _check_weights(model: LoadedModel, expected: str | None) -> None:
    if expected is not None and model.weights_sha256 != expected:
        raise WeightsError(
            f"weights: expected the ones that the bundle was built from (sha256 {expected[:12]}...), got "
            f"{model.weights_sha256[:12]}...; give the right file with --weights FILE"
        )


def _require_accuracy(recipe: Recipe, report: AccuracyReport | None) -> None:
    limit = recipe.accuracy.max_drop
    if limit is None or report is None:
        return
    for name, difference in report.difference.items():
        if -difference.top1 > limit:
            raise GateError(
                f"accuracy: target {name} loses {-difference.top1:.2f} points of top-1, expected at most {limit:g}; "
                "merge less, or raise accuracy.max_drop"
            )


# Bundle ----------------------------------------------------------------------------------------------------------------


def _write_files(
    staging: Path,
    recipe: Recipe,
    planned: Planned,
    program: RewrittenProgram,
    inputs: Mapping[str, Array],
    parity: Mapping[str, ParityResult],
) -> None:
    model = planned.model
    images = next(iter(inputs.values()))
    results = program(torch.from_numpy(images))[: program.outputs]
    named = {name: result.numpy() for name, result in zip(model.output_names, results, strict=True)}
    write_sample(staging, {model.input_name: images, **named})
    (staging / "recipe.yaml").write_text(recipe_to_yaml(portable(recipe)), encoding="utf-8")
    _write_json(staging / "parity.json", {name: _parity_tree(result) for name, result in parity.items()})
    if model.preprocess is not None:
        _write_json(staging / "preprocess.json", model.preprocess.to_dict())


def _parity_tree(result: ParityResult) -> dict[str, object]:
    return {**asdict(result), "passed": result.passed}


def _write_json(path: Path, tree: object) -> None:
    path.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _manifest(
    recipe: Recipe,
    name: str,
    planned: Planned,
    program: RewrittenProgram,
    request: EmitRequest,
    artifacts: Mapping[str, Artifact],
    parity: Mapping[str, ParityResult],
) -> Manifest:
    model, schedule = planned.model, planned.schedule
    weights = WeightsRecord(kind=model.weights_kind, sha256=model.weights_sha256)
    return Manifest(
        name=name,
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


def _record(spec: TensorSpec) -> TensorRecord:
    return TensorRecord(name=spec.name, dtype=spec.dtype, shape=spec.shape)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


