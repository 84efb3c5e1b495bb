"""What goes into a bundle beside its engines: sample, recipe, preprocessing, parity and manifest."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from exporter.benchmark import BenchReport
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
from exporter.errors import ExportError
from exporter.local_path import map_local_paths
from exporter.models import PREPROCESS_FILE, LoadedModel
from exporter.packages import toolchain
from exporter.pipeline.measure import Measured
from exporter.pipeline.plan import Planned, bundle_name, gmacs
from exporter.recipe import Recipe, merging_name, portable, recipe_to_yaml
from exporter.records import BENCH_FILE, VALIDATION_FILE, canonical_json
from exporter.report.merged_regions import square_patches
from exporter.rewrite import RewrittenProgram
from exporter.targets import Array, Artifact, EmitRequest, TensorSpec
from exporter.validation import ParityResult, Reference, groups_of

MERGES_FILE = "merges.npz"


def as_sample(model: LoadedModel, reference: Reference) -> dict[str, Array]:
    """An input and the eager outputs for it, by the model's own names, the input first."""
    named: dict[str, Array] = {
        name: output.numpy() for name, output in zip(model.output_names, reference.outputs, strict=True)
    }
    return {model.input_name: reference.images, **named}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the road found out about the engines that it built.

    Attributes:
        first: the input that becomes the bundle's sample, and what eager PyTorch makes of it.
        parity: by target.
        own: by target, the same along its matches, where it resolves a near-tie otherwise.
        rounding: by block, what computing in 16 bits costs.
        failures: why a target is not in the bundle.
        measured: on images, where there were any.
        bench: where a speed was demanded.
    """

    first: Reference
    parity: Mapping[str, ParityResult]
    own: Mapping[str, Reference] = field(default_factory=dict)
    rounding: Mapping[int, float] = field(default_factory=dict)
    failures: Mapping[str, ExportError] = field(default_factory=dict)
    measured: Measured | None = None
    bench: BenchReport | None = None


def write_files(
    folder: Path, recipe: Recipe, planned: Planned, program: RewrittenProgram, findings: Findings
) -> None:
    """Write everything beside the engines and the manifest into a staged bundle."""
    model = planned.model
    write_sample(folder, as_sample(model, findings.first))
    for name, reference in findings.own.items():
        write_sample(folder, as_sample(model, reference), name)
    (folder / "recipe.yaml").write_text(recipe_to_yaml(portable(recipe)), encoding="utf-8")
    parity = {name: _parity_tree(result, findings.rounding) for name, result in findings.parity.items()}
    (folder / "parity.json").write_bytes(canonical_json(parity))
    if model.preprocess is not None:
        (folder / PREPROCESS_FILE).write_bytes(canonical_json(model.preprocess.to_dict()))
    if program.merging_blocks:
        groups_LBT = groups_of(program, findings.first.records, planned.schedule.tokens[0])
        np.savez(folder / MERGES_FILE, groups_LBT=groups_LBT.numpy())
    if findings.measured is not None:
        (folder / VALIDATION_FILE).write_bytes(canonical_json(findings.measured.record))
    if findings.bench is not None:
        (folder / BENCH_FILE).write_bytes(canonical_json(findings.bench.record(merging_name(recipe))))


def manifest(
    recipe: Recipe,
    planned: Planned,
    program: RewrittenProgram,
    request: EmitRequest,
    artifacts: Mapping[str, Artifact],
    findings: Findings,
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
        patch_grid=_patch_grid(planned),
        schedule=ScheduleRecord(requested=schedule.requested, merged=schedule.merged, tokens=schedule.tokens),
        gmacs=gmacs(planned, program.executed_macs),
        input=recipe.input,
        layout=recipe.layout,
        inputs=(_record(request.input),),
        outputs=tuple(_record(spec) for spec in request.outputs),
        preprocess=model.preprocess.to_dict() if model.preprocess else None,
        passes=tuple(outcome.name for outcome in program.passes),
        artifacts={
            each.target: ArtifactRecord(
                file=each.file,
                precision=recipe.precision,
                opset=each.opset,
                built_from=each.built_from or None,
                details=each.details or None,
                options=_engine_options(recipe, each.target),
            )
            for each in artifacts.values()
        },
        parity={
            key: parity_record(result, result.match_agreement) for key, result in findings.parity.items()
        },
        notes=(*model.notes, *schedule.notes, *_failures(findings)),
        toolchain=toolchain(artifacts),
    )


def _patch_grid(planned: Planned) -> tuple[int, int] | None:
    """Rows and columns of the patches, where square ones would not give them."""
    anatomy, shape = planned.anatomy, planned.model.example_input.shape
    if anatomy is None or anatomy.grid is None or planned.schedule.is_dense or len(shape) != 3:
        return None
    squares = square_patches(anatomy.tokens - anatomy.prefix, shape[1], shape[2])
    is_told = squares is not None and (squares.rows, squares.columns) == anatomy.grid
    return None if is_told else anatomy.grid


def _engine_options(recipe: Recipe, target: str) -> dict[str, object]:
    """The options that were given for a target, without what names a place on this machine."""
    options = recipe.engines.get(target)
    return {} if options is None else asdict(map_local_paths(options, lambda _: None))


def parity_record(result: ParityResult, match_agreement: tuple[float, ...]) -> ParityRecord:
    """What a manifest says of a comparison; the agreement of the matches is measured at export only."""
    return ParityRecord(
        max_abs_error=result.max_abs_error,
        mean_abs_error=result.mean_abs_error,
        cosine=result.cosine,
        match_agreement=match_agreement,
        passed=result.passed,
    )


def _failures(findings: Findings) -> list[str]:
    return [f"{name} was not built (status {error.exit_status})" for name, error in findings.failures.items()]


def _parity_tree(result: ParityResult, rounding: Mapping[int, float]) -> dict[str, object]:
    blocks = [{"block": block, "rounding_error": error} for block, error in rounding.items()]
    return {**asdict(result), "passed": result.passed, **({"blocks": blocks} if blocks else {})}


def _record(spec: TensorSpec) -> TensorRecord:
    return TensorRecord(name=spec.name, dtype=spec.dtype, shape=spec.shape)
