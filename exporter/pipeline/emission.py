"""From one rewritten program to proven engines: lower, type, emit and prove for every target of a recipe.

In: the program in fp32 and what eager PyTorch makes of the inputs. Out: an `Emitted`. A target that fails leaves
nothing behind and does not stop the others.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from exporter.errors import ExportError, ParityError
from exporter.forms import Forms, Precision, program_precision
from exporter.pipeline.calibration import calibration_images
from exporter.pipeline.contents import as_sample
from exporter.pipeline.observe import Observer
from exporter.pipeline.plan import Planned
from exporter.pipeline.stage_options import emit_request, rewrite_options, tolerances
from exporter.recipe import Recipe
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.targets import PREPARED, Array, Artifact, EmitRequest, Target, find_target, target
from exporter.validation import (
    ParityResult,
    Reference,
    Suspect,
    along_matches,
    locate_error,
    prove,
    require,
    rounding_errors,
)


@dataclass(frozen=True, kw_only=True)
class Emitted:
    """The engines that were built, by target, and those that were not.

    Attributes:
        artifacts: in the bundle's folder.
        parity: each one's proof.
        own: for targets that resolve a near-tie otherwise than eager PyTorch, the first input along their matches.
        rounding: relative error of the tokens behind every merge that computing in 16 bits costs.
        failures: why the other targets have no engine.
    """

    artifacts: Mapping[str, Artifact]
    parity: Mapping[str, ParityResult]
    own: Mapping[str, Reference] = field(default_factory=dict)
    rounding: Mapping[int, float] = field(default_factory=dict)
    failures: Mapping[str, ExportError] = field(default_factory=dict)


Emit = Callable[[RewrittenProgram, EmitRequest, Path], Artifact]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A target, and what is done for it here: built, or only prepared."""

    target: Target
    name: str
    emit: Emit


def available(recipe: Recipe) -> tuple[list[Engine], dict[str, ExportError]]:
    """The targets of a recipe that can be built here, or prepared if it asks for that, and why the others cannot.

    Raises:
        ExportError: none of them can; the worst of the reasons.
    """
    engines, failures = [], dict[str, ExportError]()
    for name in recipe.targets:
        try:
            found = target(name, recipe.precision)
            engines.append(Engine(target=found, name=name, emit=found.emit))
        except ExportError as error:
            prepared = _preparing(name, recipe)
            if prepared is None:
                failures[name] = error
            else:
                engines.append(prepared)
    if not engines:
        raise worst(failures.values())
    return engines, failures


def _preparing(name: str, recipe: Recipe) -> Engine | None:
    """How a target that cannot be built here is prepared, if that was asked for and is possible."""
    if not recipe.prepare or name not in PREPARED:
        return None
    found: Any = find_target(name)
    if recipe.precision not in found.precisions:
        return None
    return Engine(target=found, name=PREPARED[name], emit=found.prepare)


def worst(failures: Iterable[ExportError]) -> ExportError:
    """The failure with the highest exit status, the first one of them."""
    return max(failures, key=lambda failure: failure.exit_status)


@dataclass(frozen=True, kw_only=True)
class Emission:
    """Everything that is the same for all targets of a recipe.

    Attributes:
        recipe: what is built.
        planned: of the model.
        program: rewritten, in fp32 and the plainest form: what every engine is compared with.
        references: inputs by name, and what eager PyTorch makes of them.
        folder: of the bundle.
        observe: told about each stage.
    """

    recipe: Recipe
    planned: Planned
    program: RewrittenProgram
    references: Mapping[str, Reference]
    folder: Path
    observe: Observer

    def request(self) -> EmitRequest:
        """What every target is asked for; options and lowering are each one's own."""
        first = next(iter(self.references.values()))
        return emit_request(self.recipe, self.planned, as_sample(self.planned.model, first))

    def emit(self, engines: Iterable[Engine]) -> Emitted:
        """Emit and prove.

        Raises:
            ExportError: every target failed; the worst of the reasons.
        """
        artifacts, parity, own, failures = dict[str, Artifact](), dict[str, ParityResult](), {}, {}
        programs = {_form("fp32", Forms()): self.program}
        calibration = self._calibration()
        for engine in engines:
            before = set(self.folder.rglob("*"))
            try:
                request = self._request(engine.target, calibration)
                program = self._lowered(request, programs)
                artifacts[engine.name] = self._emit(engine, program, request)
                parity[engine.name] = self._prove(artifacts[engine.name], request)
                if next(iter(self.references)) in parity[engine.name].followed:
                    first = next(iter(self.references.values()))
                    own[engine.name] = along_matches(self.program, artifacts[engine.name], first)
            except ExportError as error:
                failures[engine.name] = error
                artifacts.pop(engine.name, None)
                parity.pop(engine.name, None)
                _remove(set(self.folder.rglob("*")) - before)
        if not artifacts:
            raise worst(failures.values())
        return Emitted(
            artifacts=artifacts,
            parity=parity,
            own=own,
            rounding=self._rounding(programs),
            failures=failures,
        )

    def _calibration(self) -> Array | None:
        if self.recipe.precision != "int8":
            return None
        with self.observe("calibrate") as note:
            images = calibration_images(self.recipe, self.planned.model)
            note(f"{len(images)} images")
        return images

    def _request(self, engine: Target, calibration: Array | None) -> EmitRequest:
        return replace(
            self.request(),
            options=self.recipe.engines.get(engine.name, engine.options()),
            forms=engine.forms.choose(self.recipe.lowering),
            calibration=calibration,
        )

    def _lowered(
        self, request: EmitRequest, programs: dict[tuple[Precision, Forms], RewrittenProgram]
    ) -> RewrittenProgram:
        """The program in the form that a target asks for; each form is made once."""
        form = _form(request.precision, request.forms)
        if form not in programs:
            with self.observe(f"rewrite for {request.precision}"):
                programs[form] = rewrite(self.planned.program, self.planned.schedule, self._options(form))
        return programs[form]

    def _emit(self, engine: Engine, program: RewrittenProgram, request: EmitRequest) -> Artifact:
        with self.observe(f"emit {engine.name}") as note:
            before = _bytes_in(self.folder)
            artifact = engine.emit(program, replace(request, progress=note.progress), self.folder)
            note(f"{(_bytes_in(self.folder) - before) / 1e6:.1f} MB")
        return artifact

    def _prove(self, artifact: Artifact, request: EmitRequest) -> ParityResult:
        with self.observe(f"prove {artifact.target}") as note:
            result = prove(self.program, artifact, self.references, tolerances(self.recipe))
            try:
                require(result, artifact.target, self.recipe.precision)
            except ParityError as error:
                raise ParityError(f"{error}; {self._place(result, request)}") from None
            note(f"max error {result.max_abs_error:.1e}")
        return result

    def _place(self, result: ParityResult, request: EmitRequest) -> str:
        """After which pass and in which block the numbers part, on the first input that fell short."""
        missed = [
            name for name, each in result.comparisons.items() if each.shortfalls(result.tolerances)
        ] or [*result.followed, *self.references]
        reference = self.references[missed[0].partition("/")[0]]
        suspect = Suspect(
            program=self.planned.program,
            schedule=self.planned.schedule,
            options=self._options(_form(request.precision, request.forms)),
            reference=self.program,
        )
        return locate_error(suspect, torch.from_numpy(reference.images), result)

    def _options(self, form: tuple[Precision, Forms]) -> RewriteOptions:
        precision, forms = form
        return replace(rewrite_options(self.recipe, self.planned.model), precision=precision, forms=forms)

    def _rounding(self, programs: Mapping[tuple[Precision, Forms], RewrittenProgram]) -> Mapping[int, float]:
        """What 16 bits cost, block by block, on the first input; it is the same for every engine."""
        typed = [program for (precision, _), program in programs.items() if precision != "fp32"]
        if not typed:
            return {}
        with self.observe("rounding per block") as note:
            images = next(iter(self.references.values())).images
            errors = rounding_errors(self.program, typed[0], torch.from_numpy(images))
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
