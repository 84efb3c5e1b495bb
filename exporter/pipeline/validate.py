"""The `validate` command: verify a bundle on the machine that will serve it, and measure it on images."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from exporter.bundle import (
    Bundle,
    amend,
    check_amendable,
    load_bundle,
    locked,
)
from exporter.errors import ExportError, TargetUnavailableError, UsageError
from exporter.ladder import Cascade
from exporter.models import ships_images
from exporter.pipeline.ladder_bench import LADDER
from exporter.pipeline.material import Material, material
from exporter.pipeline.measure import Engines, Measured, measure, require_measured
from exporter.pipeline.measure_texts import measure_texts
from exporter.pipeline.observe import Observer, silent
from exporter.pipeline.origin import plan_bundle, rewritten
from exporter.pipeline.plan import Planned
from exporter.pipeline.stage_options import tolerances
from exporter.pipeline.texts import TextTower
from exporter.pipeline.whereabouts import MODEL_KEY, WEIGHTS_KEY
from exporter.recipe import Recipe, override
from exporter.records import LADDER_FILE, VALIDATION_FILE, canonical_json
from exporter.targets import Run, Runner, by_length
from exporter.validation import ParityResult, compare, require

_KEY_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What a validation ends with; `match_agreement` is the manifest's, since the matches are not shipped.

    Attributes:
        bundle: as it is now.
        parity: of every engine that runs here.
        measured: on images, where there were any.
        failures: by target, why an engine does not run here.
        shorter: parity of the engines for shorter texts, by length and target; empty where there is one length.
        rungs: parity of the cheaper engines of a ladder, by engine and target; empty where there is no ladder.
    """

    bundle: Bundle
    parity: Mapping[str, ParityResult]
    measured: Measured | None
    failures: Mapping[str, ExportError] = field(default_factory=dict)
    shorter: Mapping[int | str, Mapping[str, ParityResult]] = field(default_factory=dict)
    rungs: Mapping[str, Mapping[str, ParityResult]] = field(default_factory=dict)


def validate(
    path: str | Path,
    values: Mapping[str, object] | None = None,
    *,
    workers: int | None = None,
    save: bool = True,
    observe: Observer = silent,
) -> Validated:
    """Check a bundle's files, run its engines on its sample, and measure them where there are images.

    A measurement that is stopped goes on where it was when the same command runs again: until it is complete, the
    outputs so far lie in a hidden folder beside the bundle; with `save` false nothing is written there, and it starts
    again.

    Args:
        path: the bundle.
        values: recipe keys to replace, such as `validate.data`, or `model.name` for where the model lies now.
        workers: processes that decode images; None chooses.
        save: whether to put `validation.json` into the bundle.
        observe: receives the progress of every stage.

    Raises:
        BundleError: a file is damaged.
        ModelUnavailableError: the model is not where it was, and there is something to measure.
        WeightsError: it has other weights now.
        UsageError: `values` ask for a measurement, and there is nothing to measure on.
        ParityError: an engine does not give the eager outputs that the bundle recorded.
        GateError: a gate of the bundle's recipe, or of `values`, is not met; `validation.json` is written all the same.
    """
    with observe("verify files") as note:
        bundle = load_bundle(path)
        note("; ".join(bundle.notes))
        recipe = override(bundle.recipe(), values or {})
    runners, failures = _runners(bundle)
    parity = _verify(bundle, recipe, runners, observe)
    shorter = [(each, _runners(each)[0]) for each in bundle.lengths()[:-1]]
    parity_of_shorter = {
        each.manifest.inputs[0].shape[1]: _verify(each, recipe, own, observe) for each, own in shorter
    }
    cascade, parity_of_rungs = _ladder(bundle, recipe, runners, observe)
    asked = recipe.validate
    ships = ships_images(recipe.model) and recipe.model.outputs != "reduced"
    if not (asked.data or asked.pairs or ships) or recipe.model.tower == "text":
        _refuse_in_vain(values or {}, recipe)
        return Validated(
            bundle=bundle,
            parity=parity,
            measured=None,
            failures=failures,
            shorter=parity_of_shorter,
            rungs=parity_of_rungs,
        )
    if save:
        check_amendable(bundle)
    planned = plan_bundle(bundle, recipe, observe, values or ())
    found = material(asked, planned.recipe.model, planned.model, planned.first_output)
    assert found is not None
    if found.texts_alone is not None:
        every_length = {
            name: by_length([*(own[name] for _, own in shorter if name in own), runner])
            for name, runner in runners.items()
        }
        measured = measure_texts(planned, every_length, found, observe)
        if save:
            bundle = amend(bundle, {VALIDATION_FILE: canonical_json(measured.record)})
    else:
        engines = _engines(
            bundle, planned, runners if cascade is None else {**runners, LADDER: cascade}, observe
        )
        with _store(bundle, found, save) as store:
            measured = measure(engines, found, store, observe, workers)
            if save:
                bundle = amend(bundle, {VALIDATION_FILE: canonical_json(measured.record)})
    require_measured(asked, measured.record)
    return Validated(
        bundle=bundle,
        parity=parity,
        measured=measured,
        failures=failures,
        shorter=parity_of_shorter,
        rungs=parity_of_rungs,
    )


def _refuse_in_vain(values: Mapping[str, object], recipe: Recipe) -> None:
    """Raise if a measurement is asked for and there are no images; the recipe's own gates are skipped."""
    asked = [key for key in values if key.startswith("validate.") or key in (MODEL_KEY, WEIGHTS_KEY)]
    if asked and recipe.model.tower == "text":
        raise UsageError(
            f"{asked[0]}: a text tower is not measured on images; validate the bundle of both towers"
        )
    if asked:
        raise UsageError(
            f"{asked[0]}: expected images to measure on; give a folder or a CSV file with --data"
        )


def _runners(bundle: Bundle) -> tuple[dict[str, Runner], dict[str, ExportError]]:
    """The engines that are here, and why the others are not.

    Raises:
        TargetUnavailableError: none of them is.
    """
    runners, failures = dict[str, Runner](), dict[str, ExportError]()
    for name in bundle.manifest.artifacts:
        try:
            runner = bundle.runner(name)
            runner.load()
            runners[name] = runner
        except TargetUnavailableError as error:
            failures[name] = error
    if not runners and failures:
        raise next(iter(failures.values()))
    return runners, failures


def _verify(
    bundle: Bundle, recipe: Recipe, runners: Mapping[str, Runner], observe: Observer
) -> dict[str, ParityResult]:
    parity = {}
    for name, runner in runners.items():
        with observe(f"verify {name}") as note:
            sample = bundle.sample(name)
            got = runner(bundle.signature.inputs_of(sample))
            comparisons = {
                f"sample/{output}": compare(array, sample[output]) for output, array in got.items()
            }
            parity[name] = ParityResult(comparisons=comparisons, tolerances=tolerances(recipe))
            require(parity[name], name, recipe.precision)
            note(f"max error {parity[name].max_abs_error:.1e}")
    return parity


def _ladder(
    bundle: Bundle, recipe: Recipe, runners: Mapping[str, Runner], observe: Observer
) -> tuple[Cascade | None, dict[str, Mapping[str, ParityResult]]]:
    """A ladder's engines called as one, and parity of the cheaper ones; None and nothing of any other bundle."""
    record = bundle.ladder()
    if record is None:
        return None, {}
    cheaper = [(each, _runners(each)[0]) for each in bundle.rungs()[:-1]]
    cascade = Cascade(
        runners=[own[record.target] for own in (*(each for _, each in cheaper), runners)],
        threshold=record.threshold,
        router=record.router,
    )
    return cascade, {
        rung.name: _verify(each, recipe, own, observe)
        for rung, (each, own) in zip(record.rungs, cheaper, strict=False)
    }


def _engines(bundle: Bundle, planned: Planned, runners: Mapping[str, Run], observe: Observer) -> Engines:
    recipe, text = planned.recipe, bundle.text()
    program = rewritten(bundle, planned, observe)
    texts = TextTower(recipe.model)
    if text is not None:
        texts = TextTower(recipe.model, text.runners(), text.manifest.model.weights.sha256)
    return Engines(planned=planned, program=program, runners=runners, texts=texts)


@contextmanager
def _store(bundle: Bundle, found: Material, save: bool) -> Iterator[Path]:
    """Where outputs are kept until the measurement is complete: a folder that only the same measurement finds again.

    Where nothing can or may be written beside the bundle it is a temporary one, and a measurement that is stopped
    starts again.
    """
    engines = [record.sha256 for _, record in sorted(bundle.manifest.artifacts.items())]
    engines += [bundle.manifest.files[LADDER_FILE]] if LADDER_FILE in bundle.manifest.files else []
    of_bundle = _digest([bundle.manifest.model.weights.sha256, *engines])
    key = of_bundle + _digest([images.fingerprint for images in found.sets.values()])
    path = bundle.path.absolute()
    if not save or not os.access(path.parent, os.W_OK | os.X_OK):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    prefix = f".{path.name}.validation-"
    _clear_stores(path.parent, prefix, of_bundle)
    store = path.with_name(prefix + key)
    store.mkdir(exist_ok=True)
    with _held(store, bundle):
        try:
            yield store
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception:
            shutil.rmtree(store, ignore_errors=True)
            raise
        shutil.rmtree(store, ignore_errors=True)


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:6]


def _clear_stores(parent: Path, prefix: str, of_bundle: str) -> None:
    """Remove what stopped validations of earlier engines of this bundle left, which no validation goes on with."""
    for folder in parent.iterdir():
        key = folder.name.removeprefix(prefix)
        if folder.name.startswith(prefix) and not key.startswith(of_bundle) and len(key) == _KEY_LENGTH:
            with suppress(OSError), locked(folder):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(store: Path, bundle: Bundle) -> Iterator[None]:
    """Keep other processes out of a store."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(store))
        except BlockingIOError:
            raise UsageError(
                f"{bundle.path}: another process is validating it on the same images; wait for it, or stop it"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
