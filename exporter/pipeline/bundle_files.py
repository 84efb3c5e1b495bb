"""What goes into a bundle beside its engines: sample, recipe, preprocessing, parity and manifest."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np

from exporter.benchmark import BenchReport
from exporter.bundle import (
    ArtifactRecord,
    Manifest,
    ModelRecord,
    ParityRecord,
    ScheduleRecord,
    TokensRead,
    WeightsRecord,
    seal,
    write_sample,
)
from exporter.graph.nodes import operands, output_node
from exporter.local_path import map_local_paths
from exporter.models import PREPROCESS_FILE, TOKENIZER_FILE
from exporter.models.weights import sha256_of
from exporter.packages import toolchain
from exporter.pipeline.compile import Compiled
from exporter.pipeline.measure import Measured
from exporter.pipeline.plan import Planned, gmacs
from exporter.pipeline.stage_options import as_sample
from exporter.recipe import Recipe, merging_name, portable, recipe_to_yaml
from exporter.records import BENCH_FILE, VALIDATION_FILE, canonical_json
from exporter.report.merged_regions import square_patches
from exporter.targets import Artifact
from exporter.validation import ParityResult, groups_of

MERGES_FILE = "merges.npz"


def seal_bundle(compiled: Compiled, measured: Measured | None, bench: BenchReport | None) -> Manifest:
    """Write everything beside the engines into a compiled model's folder, the manifest last.

    Args:
        compiled: with its engines' files in the folder.
        measured: on images, where there were any.
        bench: where a speed was demanded.
    """
    _write_files(compiled)
    if measured is not None:
        (compiled.folder / VALIDATION_FILE).write_bytes(canonical_json(measured.record))
    if bench is not None:
        record = bench.record(merging_name(compiled.recipe))
        (compiled.folder / BENCH_FILE).write_bytes(canonical_json(record))
    return seal(compiled.folder, _manifest(compiled))


def _write_files(compiled: Compiled) -> None:
    folder, model, program = compiled.folder, compiled.planned.model, compiled.program
    write_sample(folder, as_sample(compiled.planned, compiled.sample))
    for name, engine in compiled.engines.items():
        if engine.own is not None:
            write_sample(folder, as_sample(compiled.planned, engine.own), name)
    (folder / "recipe.yaml").write_text(recipe_to_yaml(portable(compiled.recipe)), encoding="utf-8")
    parity = {
        name: _parity_tree(engine.parity, compiled.rounding) for name, engine in compiled.engines.items()
    }
    (folder / "parity.json").write_bytes(canonical_json(parity))
    if model.tokenizer is not None:
        (folder / TOKENIZER_FILE).write_bytes(model.tokenizer)
    if model.preprocess is not None:
        (folder / PREPROCESS_FILE).write_bytes(canonical_json(model.preprocess.to_dict()))
    if (
        program.merging_blocks and not compiled.planned.schedule.around
    ):  # there, each block has groups of its own
        groups_LBT = groups_of(program, compiled.sample.records, compiled.planned.schedule.tokens[0])
        np.savez(folder / MERGES_FILE, groups_LBT=groups_LBT.numpy())


def _manifest(compiled: Compiled) -> Manifest:
    """What the bundle says about itself; hashes are filled in when it is sealed."""
    recipe, planned = compiled.recipe, compiled.planned
    model, schedule = planned.model, planned.schedule
    artifacts, lengths = list(_artifacts(compiled)), recipe.model.length
    weights = WeightsRecord(kind=model.weights_kind, sha256=model.weights_sha256)
    return Manifest(
        name=planned.name,
        model=ModelRecord(source=model.source, id=model.id, weights=weights),
        tower="text" if model.takes_texts else recipe.model.tower,
        method=recipe.method,
        method_weights=_method_weights(planned),
        tokens_protected=planned.anatomy.prefix if planned.anatomy else 0,
        patch_grid=_patch_grid(planned),
        schedule=ScheduleRecord(
            requested=schedule.requested,
            merged=schedule.merged,
            tokens=schedule.tokens,
            dropped=schedule.dropped if any(schedule.dropped) else None,
            around=schedule.around or None,
        ),
        calibrated=planned.calibrated,
        dense_outputs=recipe.model.outputs == "dense" or None,
        tokens_read=_tokens_read(compiled),
        gmacs=gmacs(planned, compiled.program.executed_macs),
        input=recipe.input,
        layout=recipe.layout,
        lengths=lengths if isinstance(lengths, tuple) and len(lengths) > 1 else None,
        inputs=compiled.request.signature.inputs,
        outputs=compiled.request.signature.outputs,
        preprocess=model.preprocess.to_dict() if model.preprocess else None,
        passes=tuple(outcome.name for outcome in compiled.program.passes),
        artifacts={each.target: _artifact(recipe, each) for each in artifacts},
        parity={
            name: parity_record(result, result.match_agreement) for name, result in compiled.parity.items()
        },
        notes=(
            *model.notes,
            *schedule.notes,
            *(f"{each.target}: {note}" for each in artifacts for note in each.notes),
            *_failures(compiled),
        ),
        toolchain=toolchain(each.target for each in artifacts),
    )


def _artifacts(compiled: Compiled) -> Iterator[Artifact]:
    """Those that were verified, each before what was built beside it."""
    for engine in compiled.engines.values():
        yield engine.artifact
        yield from engine.artifact.unverified


def _artifact(recipe: Recipe, artifact: Artifact) -> ArtifactRecord:
    return ArtifactRecord(
        file=artifact.file,
        precision=recipe.precision,
        opset=artifact.opset,
        built_from=artifact.built_from or None,
        details=artifact.details or None,
        options=_engine_options(recipe, artifact.target),
    )


def parity_record(result: ParityResult, match_agreement: tuple[float, ...]) -> ParityRecord:
    """What a manifest says of a comparison; the agreement of the matches is measured at export only."""
    return ParityRecord(
        max_abs_error=result.max_abs_error,
        mean_abs_error=result.mean_abs_error,
        cosine=result.cosine,
        match_agreement=match_agreement,
        passed=result.passed,
    )


def _method_weights(planned: Planned) -> WeightsRecord | None:
    if not planned.learned:
        return None
    tensors = {
        f"{block}.{index}": tensor
        for block, stage in planned.learned.items()
        for index, tensor in enumerate(stage)
    }
    return WeightsRecord(kind=planned.model.weights_kind, sha256=sha256_of(tensors))


def _tokens_read(compiled: Compiled) -> TokensRead | None:
    planned = compiled.planned
    if planned.model.read_by is None:
        return None
    dense = operands(output_node(planned.program.graph_module.graph))[0].meta["val"].shape[1]
    given = compiled.request.signature.outputs[0].shape[1]
    return TokensRead(by=planned.model.read_by, dense=int(dense), given=int(given))


def _patch_grid(planned: Planned) -> tuple[int, int] | None:
    """Rows and columns of the patches, where square ones would not give them."""
    anatomy, shape = planned.anatomy, planned.model.example_input.shape
    if anatomy is None or anatomy.grid is None or planned.schedule.is_dense or len(shape) != 3:
        return None
    squares = square_patches(anatomy.tokens - anatomy.prefix, shape[1], shape[2])
    return None if squares == anatomy.grid else anatomy.grid


def _engine_options(recipe: Recipe, target: str) -> dict[str, object]:
    """The options that were given for a target, without what names a place on this machine."""
    options = recipe.engines.get(target)
    return {} if options is None else asdict(map_local_paths(options, lambda _: None))


def _failures(compiled: Compiled) -> list[str]:
    failures = compiled.failures.items()
    return [f"{name} was not built (status {error.exit_status})" for name, error in failures]


def _parity_tree(result: ParityResult, rounding: Mapping[int, float]) -> dict[str, object]:
    blocks = [{"block": block, "rounding_error": error} for block, error in rounding.items()]
    return {**asdict(result), "passed": result.passed, **({"blocks": blocks} if blocks else {})}
