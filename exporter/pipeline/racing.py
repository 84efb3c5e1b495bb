"""From engines and programs to a race: who runs against whom, on which input, and what the outcome means.

In: `Subject`s, the dense and the reduced forms of one model. Out: a `BenchReport`. Used by `bench`, by recipes that
gate on speed, and by sweeps.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from exporter.benchmark import (
    BenchReport,
    Contender,
    Device,
    EngineFile,
    Progress,
    RaceOptions,
    environment,
    race,
    report_on,
)
from exporter.benchmark.cores import pick_cores
from exporter.benchmark.loading import write_inputs
from exporter.benchmark.race import LEAST_LAUNCHES
from exporter.bundle import Bundle
from exporter.errors import GateError, TargetUnavailableError, UsageError
from exporter.machine import usable_cores
from exporter.models import is_raced
from exporter.pipeline.compile import Compiled, Targets, compile_engines
from exporter.pipeline.observe import Observer
from exporter.pipeline.plan import Planned
from exporter.pipeline.stage_options import parity_inputs
from exporter.recipe import Recipe, absolute, merging_name
from exporter.rewrite import RewrittenProgram
from exporter.targets import Signature

PROGRAM_FILE = "program.pt2"


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How to benchmark.

    Attributes:
        batches: images per call; empty for what the bundle was built with.
        threads: of each contender; None for all cores of this process.
        launches: processes per contender.
        rounds: per launch.
        min_round_ms: of calls in a round, at least.
        device: `cpu` or `cuda`.
        compiled: whether `torch.compile` takes part.
        eager: whether eager PyTorch takes part, dense and reduced.
    """

    batches: tuple[int, ...] = ()
    threads: int | None = None
    launches: int = 5
    rounds: int = 5
    min_round_ms: float = RaceOptions.min_round_ms
    device: Device = "cpu"
    compiled: bool = True
    eager: bool = True


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One form of the model at one batch size.

    Attributes:
        label: `dense`, or what distinguishes a reduced form, such as `tome-r8`.
        batch: images per call.
        reduced: whether tokens are merged.
        executed_macs: of one image.
        engines: by target.
        program: the rewritten program, saved; None leaves the eager reference out.
    """

    label: str
    batch: int
    reduced: bool
    executed_macs: int
    engines: Mapping[str, EngineFile]
    program: Path | None = None


def save_program(program: RewrittenProgram, folder: Path) -> Path:
    """Write a rewritten program for a process of its own to load."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program.exported, folder / PROGRAM_FILE)
    return folder / PROGRAM_FILE


def bundle_subject(bundle: Bundle, label: str, batch: int, program: Path | None = None) -> Subject:
    """A bundle's engines as one form of its model."""
    manifest = bundle.manifest
    engines = {
        name: _engine_file(name, bundle.path / record.file, bundle.signature, bundle.engine_options(name))
        for name, record in manifest.artifacts.items()
    }
    return Subject(
        label=label,
        batch=batch,
        reduced=not manifest.schedule.is_dense,
        executed_macs=round(manifest.gmacs.executed * 1e9),
        engines=engines,
        program=program,
    )


def compiled_subject(compiled: Compiled, label: str, batch: int, program: Path | None = None) -> Subject:
    """Engines that were just compiled as one form of their model."""
    options, signature = compiled.recipe.engines, compiled.request.signature
    engines = {
        name: _engine_file(name, compiled.folder / engine.artifact.file, signature, options.get(name))
        for name, engine in compiled.engines.items()
    }
    return Subject(
        label=label,
        batch=batch,
        reduced=not compiled.planned.schedule.is_dense,
        executed_macs=compiled.program.executed_macs,
        engines=engines,
        program=program,
    )


def _engine_file(target: str, path: Path, signature: Signature, options: Any) -> EngineFile:
    given = {} if options is None else asdict(options)
    return EngineFile(target=target, path=path, signature=signature, options=given)


def asks_for_race(recipe: Recipe) -> bool:
    """Whether an export ends with a race: for a gate always, for a dense schedule never, and otherwise as is asked."""
    asked = recipe.bench
    if asked.min_speedup is not None or recipe.schedule.is_dense:
        return asked.min_speedup is not None
    return is_raced(recipe.model) if asked.race is None else asked.race


def race_against_dense(compiled: Compiled, targets: Targets, observe: Observer) -> BenchReport:
    """Race compiled engines against dense ones of the same targets, and hold the speed gate of the recipe.

    Without a gate the race is short: fewer launches, shorter rounds, no rewritten program in eager PyTorch.

    Raises:
        GateError: an engine is too slow, or could not be timed.
    """
    recipe, planned, label = compiled.recipe, compiled.planned, merging_name(compiled.recipe)
    with tempfile.TemporaryDirectory(dir=compiled.folder) as folder:
        work = Path(folder)
        (work / "dense").mkdir()
        dense = compile_engines(planned.dense, targets, work / "dense", observe)
        gated = recipe.bench.min_speedup is not None
        eager = save_program(compiled.program, work / "eager") if gated else None
        subjects = [
            compiled_subject(dense, "dense", recipe.batch),
            compiled_subject(compiled, label, recipe.batch, eager),
        ]
        options = BenchOptions(compiled=False)
        if not gated:
            options = replace(options, launches=3, min_round_ms=200.0)
        report = race_subjects(planned, subjects, work, options, observe)
    require_speed(recipe, report, label)
    return report


def race_subjects(
    planned: Planned,
    subjects: Sequence[Subject],
    work: Path,
    options: BenchOptions,
    observe: Observer,
) -> BenchReport:
    """Time all subjects of each batch size against each other, and against the model itself.

    Args:
        planned: the model, and a recipe that says how engines take their images.
        subjects: dense and reduced forms.
        work: an existing folder for inputs, logs and compiler caches.
        options: how.
        observe: receives the progress of every stage.
    """
    batches = tuple(dict.fromkeys(subject.batch for subject in subjects))
    inputs = {batch: _write_input(planned, batch, work / f"input-{batch}.npy") for batch in batches}
    contenders = [
        *_models(planned, subjects, work, options),
        *engine_contenders(subjects),
        *_programs(subjects, options),
    ]
    return run_race(contenders, inputs, work, options, observe)


def run_race(
    contenders: Sequence[Contender],
    inputs: Mapping[int, Path],
    work: Path,
    options: BenchOptions,
    observe: Observer,
) -> BenchReport:
    """Time contenders; as `race`, by the options of a benchmark.

    Raises:
        TargetUnavailableError: none of them can be timed here.
    """
    threads = options.threads or len(usable_cores())
    settings = RaceOptions(
        threads=threads,
        work=work,
        launches=options.launches,
        rounds=options.rounds,
        min_round_ms=options.min_round_ms,
        min_calls=1,
        device=options.device,
    )
    with observe("race") as note:

        def report_progress(progress: Progress) -> None:
            note.progress(progress.done, progress.steps)

        raced = race(contenders, inputs, settings, report_progress)
        report = report_on(raced, environment(raced))
        if not report.measurements:
            first = report.unavailable[0]
            raise TargetUnavailableError(
                f"bench: nothing can be timed here: {first.contender.label}: {first.reason}"
            )
        note(f"{len(contenders)} contenders, {options.launches} launches of {options.rounds} rounds")
    return report


def require_speed(recipe: Recipe, report: BenchReport, label: str) -> None:
    """Raise a GateError if a reduced form is not as much faster than the dense one as its recipe demands.

    Args:
        recipe: with or without a gate.
        report: of a race that the form took part in.
        label: the form's `Subject.label`.

    Raises:
        GateError: an engine is too slow, or could not be timed.
    """
    least = recipe.bench.min_speedup
    if least is None:
        return
    for missing in report.unavailable:
        contender = missing.contender
        if contender.kind == "engine" and (not contender.reduced or contender.form == label):
            raise GateError(
                f"speed: {contender.label} could not be timed ({missing.reason}), expected at least "
                f"{least:g}x its dense engine; make it run here, or remove bench.min_speedup"
            )
    own = {each.contender.name for each in report.measurements if each.contender.form == label}
    for each in report.efficiencies:
        if each.name not in own:
            continue
        low, speedup, high = (
            each.macs_ratio * value for value in (each.interval[0], each.value, each.interval[1])
        )
        if speedup < least:
            raise GateError(
                f"speed: {each.name} at batch {each.batch} is {speedup:.2f}x as fast as its dense "
                f"engine (95 % interval {low:.2f} to {high:.2f}), expected at least {least:g}x; merge more, or lower "
                "bench.min_speedup"
            )


def _models(
    planned: Planned, subjects: Sequence[Subject], work: Path, options: BenchOptions
) -> Iterable[Contender]:
    """The model as its library builds it, in eager PyTorch and through torch.compile."""
    macs = max(subject.executed_macs for subject in subjects)
    recipe = planned.recipe
    plain = replace(recipe, input="float", layout="nchw")
    kinds = (("eager dense", "module", options.eager), ("compiled dense", "compiled", options.compiled))
    forms = [(*kind, graph) for kind in kinds for graph in _graphs(options)]
    for batch in dict.fromkeys(subject.batch for subject in subjects):
        own = None
        if plain != recipe:
            own = _write_input(replace(planned, recipe=plain), batch, work / f"model-input-{batch}.npy")
        for name, kind, wanted, graph in forms:
            if wanted:
                yield Contender(
                    name=f"{name}, graph" if graph else name,
                    kind="module" if kind == "module" else "compiled",
                    batch=batch,
                    reduced=False,
                    executed_macs=macs,
                    model=absolute(recipe.model),
                    input=own,
                    cuda_graph=graph,
                )


def engine_contenders(subjects: Iterable[Subject]) -> Iterable[Contender]:
    """Every engine of every form."""
    for subject in subjects:
        for target, file in subject.engines.items():
            name = f"{subject.label} {target}"
            yield Contender(name=name, kind="engine", target=target, engine=file, **_shared(subject))


def _programs(subjects: Iterable[Subject], options: BenchOptions) -> Iterable[Contender]:
    for subject in subjects:
        for graph in _graphs(options) if subject.program is not None and options.eager else ():
            yield Contender(
                name=f"eager {subject.label}, graph" if graph else f"eager {subject.label}",
                kind="program",
                program=subject.program,
                cuda_graph=graph,
                **_shared(subject),
            )


def _shared(subject: Subject) -> dict[str, Any]:
    """What all contenders of a form have in common."""
    return {
        "form": subject.label,
        "batch": subject.batch,
        "reduced": subject.reduced,
        "executed_macs": subject.executed_macs,
    }


def _graphs(options: BenchOptions) -> tuple[bool, ...]:
    """On CUDA, PyTorch races twice: as it is, and replayed from a CUDA graph, which has no launches to wait for."""
    return (False, True) if options.device == "cuda" else (False,)


def _write_input(planned: Planned, batch: int, path: Path) -> Path:
    """A real photo (or noise, for a model that does not take photos), as often as the batch asks."""
    at_batch = replace(planned, recipe=replace(planned.recipe, batch=batch, dynamic_batch=False))
    return write_inputs(path, next(iter(parity_inputs(at_batch).values())))


def check_options(options: BenchOptions) -> None:
    """Raise a UsageError for options that no race can be held with, before anything is built for one."""
    for name, given, least in (
        *(("--batch", batch, 1) for batch in options.batches),
        ("--processes", options.launches, LEAST_LAUNCHES),
        ("--rounds", options.rounds, 1),
    ):
        if given < least:
            raise UsageError(f"{name}: expected at least {least}, got {given}")
    if options.threads is not None:
        pick_cores(options.threads)
