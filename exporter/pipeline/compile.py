"""Compile a planned model: rewrite it, run it in eager PyTorch, emit an engine for every target, verify each.

In: a `Planned` and the targets that can be built here. Out: a `Compiled`, with the engines' files in a folder. A target
that fails leaves nothing in the folder and does not stop the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from exporter.errors import ExportError, ParityError, TargetUnavailableError
from exporter.forms import CALIBRATED, Forms, Precision, program_precision
from exporter.pipeline.calibration import calibration_inputs
from exporter.pipeline.observe import Observer
from exporter.pipeline.plan import Planned
from exporter.pipeline.stage_options import (
    as_sample,
    emit_request,
    parity_inputs,
    rewrite_options,
    tolerances,
)
from exporter.recipe import Recipe
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.targets import Array, Artifact, Emit, EmitRequest, Runner, Target, find_target, target
from exporter.validation import (
    ParityResult,
    Reference,
    Suspect,
    along_matches,
    locate_error,
    require,
    require_finite,
    rounding_errors,
    run_eager,
    verify,
)


@dataclass(frozen=True, kw_only=True)
class TargetHere:
    """A target, and what this machine can do for it: build an engine, or prepare the build of one elsewhere."""

    target: Target
    name: str
    emit: Emit


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The targets of a recipe: those that can be built here, and why the others cannot."""

    here: tuple[TargetHere, ...]
    failures: Mapping[str, ExportError]


@dataclass(frozen=True, kw_only=True)
class CompiledEngine:
    """An engine that was built and verified.

    Attributes:
        artifact: its file, and a runner.
        parity: compared with eager PyTorch.
        own: the first input along the engine's own matches, where it resolves a near-tie otherwise than eager PyTorch.
    """

    artifact: Artifact
    parity: ParityResult
    own: Reference | None = None


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A model compiled for its targets.

    Attributes:
        planned: the model that was compiled, with its recipe.
        program: rewritten, in fp32 and the plainest form: what every engine is compared with.
        references: inputs by name, and what eager PyTorch computes from them; the first one becomes the sample.
        folder: with the engines' files.
        request: what every target was asked for.
        engines: by target.
        rounding: by block, the relative error of the tokens after the merge that computing in 16 bits causes.
        failures: by target, why it has no engine.
    """

    planned: Planned
    program: RewrittenProgram
    references: Mapping[str, Reference]
    folder: Path
    request: EmitRequest
    engines: Mapping[str, CompiledEngine]
    rounding: Mapping[int, float] = field(default_factory=dict)
    failures: Mapping[str, ExportError] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """That asked for it."""
        return self.planned.recipe

    @property
    def sample(self) -> Reference:
        """The first input, with its eager outputs."""
        return next(iter(self.references.values()))

    @property
    def parity(self) -> dict[str, ParityResult]:
        """How each engine compares with eager PyTorch, by target."""
        return {name: engine.parity for name, engine in self.engines.items()}

    @property
    def runners(self) -> dict[str, Runner]:
        """A runner for each engine, by target."""
        return {name: engine.artifact.runner for name, engine in self.engines.items()}


def targets_here(recipe: Recipe) -> Targets:
    """What this machine can do for each target of a recipe.

    Raises:
        ExportError: nothing for any of them; the worst of the reasons.
    """
    here, failures = list[TargetHere](), dict[str, ExportError]()
    for name in recipe.targets:
        try:
            found = target(name, recipe.precision, recipe.engines.get(name))
            here.append(TargetHere(target=found, name=name, emit=found.emit))
        except ExportError as error:
            prepared = _preparing(name, recipe) if isinstance(error, TargetUnavailableError) else None
            if prepared is None:
                failures[name] = error
            else:
                here.append(prepared)
    if not here:
        raise worst(failures.values())
    return Targets(here=tuple(here), failures=failures)


def compile_engines(planned: Planned, targets: Targets, folder: Path, observe: Observer) -> Compiled:
    """Rewrite the planned model, and build and verify an engine for every target.

    Args:
        planned: the model, its schedule, and the recipe that asks for them.
        targets: of the recipe.
        folder: an existing folder for the engines' files.
        observe: receives the progress of every stage.

    Raises:
        ExportError: the graph cannot be rewritten, or every target failed; the worst of the reasons.
    """
    with observe("rewrite") as note:
        program = rewrite(planned.program, planned.schedule, rewrite_options(planned))
        note(f"{program.executed_macs / 1e9:.4g} GMACs executed")
    with observe("run eager") as note:
        references = run_eager(program, parity_inputs(planned))
        require_finite(program, references)
        note(", ".join(references))
    request = emit_request(planned, as_sample(planned, next(iter(references.values()))))
    compiler = _Compiler(
        compiled=Compiled(
            planned=planned,
            program=program,
            references=references,
            folder=folder,
            request=request,
            engines={},
        ),
        observe=observe,
        programs={_form("fp32", Forms()): program},
    )
    return compiler.run(targets)


def worst(failures: Iterable[ExportError]) -> ExportError:
    """The failure with the highest exit status, the first one of them."""
    return max(failures, key=lambda failure: failure.exit_status)


def _preparing(name: str, recipe: Recipe) -> TargetHere | None:
    """How a target that cannot be built here is prepared, if that was asked for and is possible."""
    found = find_target(name)
    if not recipe.prepare or recipe.precision not in found.precisions:
        return None
    if found.prepared is None or found.prepared.emit is None:
        return None
    return TargetHere(target=found, name=found.prepared.name, emit=found.prepared.emit)


@dataclass(frozen=True, kw_only=True)
class _Compiler:
    """Builds engines one after the other; `programs` keeps the program of every form that was needed."""

    compiled: Compiled
    observe: Observer
    programs: dict[tuple[Precision, Forms], RewrittenProgram]

    def run(self, targets: Targets) -> Compiled:
        engines, failures = dict[str, CompiledEngine](), dict(targets.failures)
        calibration = self._calibration()
        folder = self.compiled.folder
        for each in targets.here:
            before = set(folder.rglob("*"))
            try:
                engine = self._engine(each, calibration)
                engines[engine.artifact.target] = engine
            except ExportError as error:
                failures[each.name] = error
                _remove(set(folder.rglob("*")) - before)
        if not engines:
            raise worst(failures[each.name] for each in targets.here)
        return replace(self.compiled, engines=engines, rounding=self._rounding(), failures=failures)

    def _engine(self, here: TargetHere, calibration: Mapping[str, Array] | None) -> CompiledEngine:
        recipe, compiled = self.compiled.recipe, self.compiled
        options = recipe.engines.get(here.target.name, here.target.options())
        request = replace(
            compiled.request,
            options=options,
            forms=here.target.choose_forms(options, recipe.lowering),
            calibration=calibration,
        )
        artifact = self._emit(here, self._lowered(request), request)
        parity = self._verify(artifact, request)
        follows = next(iter(compiled.references)) in parity.followed
        own = along_matches(compiled.program, artifact, compiled.sample) if follows else None
        return CompiledEngine(artifact=artifact, parity=parity, own=own)

    def _calibration(self) -> Mapping[str, Array] | None:
        if self.compiled.recipe.precision not in CALIBRATED:
            return None
        with self.observe("calibrate") as note:
            inputs = calibration_inputs(self.compiled.planned)
            counted = "texts" if self.compiled.planned.model.takes_texts else "images"
            note(f"{len(next(iter(inputs.values())))} {counted}")
        return inputs

    def _lowered(self, request: EmitRequest) -> RewrittenProgram:
        """The program in the form that a target asks for; each form is made once."""
        form = _form(request.precision, request.forms)
        if form not in self.programs:
            planned = self.compiled.planned
            with self.observe(f"rewrite for {request.precision}"):
                self.programs[form] = rewrite(planned.program, planned.schedule, self._options(request))
        return self.programs[form]

    def _emit(self, here: TargetHere, program: RewrittenProgram, request: EmitRequest) -> Artifact:
        folder = self.compiled.folder
        with self.observe(f"emit {here.name}") as note:
            before = _bytes_in(folder)
            artifact = here.emit(program, replace(request, progress=note.progress), folder)
            note(f"{(_bytes_in(folder) - before) / 1e6:.1f} MB")
        return artifact

    def _options(self, request: EmitRequest) -> RewriteOptions:
        precision, forms = _form(request.precision, request.forms)
        options = rewrite_options(self.compiled.planned)
        given = request.calibration
        inputs = tuple(map(torch.from_numpy, given.values())) if isinstance(given, Mapping) else None
        return replace(options, precision=precision, forms=forms, calibration=inputs)

    def _verify(self, artifact: Artifact, request: EmitRequest) -> ParityResult:
        recipe, compiled = self.compiled.recipe, self.compiled
        with self.observe(f"verify {artifact.target}") as note:
            result = verify(compiled.program, artifact, compiled.references, tolerances(recipe))
            try:
                require(result, artifact.target, recipe.precision)
            except ParityError as error:
                raise ParityError(f"{error}; {self._place(result, request)}") from None
            note(f"max error {result.max_abs_error:.1e}")
        return result

    def _place(self, result: ParityResult, request: EmitRequest) -> str:
        """After which pass and in which block the numbers part, on the first input that fell short."""
        compiled = self.compiled
        missed = [name for name, each in result.comparisons.items() if each.shortfalls(result.tolerances)]
        first = next(iter([*missed, *result.followed, *compiled.references])).partition("/")[0]
        suspect = Suspect(
            program=compiled.planned.program,
            schedule=compiled.planned.schedule,
            options=self._options(request),
            reference=compiled.program,
        )
        return locate_error(suspect, compiled.references[first].tensors, result)

    def _rounding(self) -> Mapping[int, float]:
        """The error of 16 bits, block by block, on the first input; it is the same for every engine."""
        typed = [program for (precision, _), program in self.programs.items() if precision != "fp32"]
        if not typed:
            return {}
        with self.observe("rounding per block") as note:
            inputs = self.compiled.sample.tensors
            errors = rounding_errors(self.compiled.program, typed[0], inputs)
            note(f"{max(errors.values(), default=0.0):.1e} at most")
        return errors


def _form(precision: Precision, forms: Forms) -> tuple[Precision, Forms]:
    """What a rewritten program depends on; how attention is spelled is the target's own part."""
    return program_precision(precision), replace(forms, attention="decomposed")


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(paths: Iterable[Path]) -> None:
    for path in sorted(paths, reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
