"""What a recipe leaves to be chosen on images without labels: options that are `auto`, and slots.

Runs between `plan_export` and `compile_engines`. In: a `Planned` whose recipe leaves a choice open. Out: a `Planned`
whose recipe says what was chosen, so that the recipe in the bundle builds the same engines without a search, and the
record of the search for the manifest.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from exporter.errors import UsageError
from exporter.pipeline.calibration import CalibrationSet, calibration_set
from exporter.pipeline.contenders import as_input, dense_contender, reduced_contender
from exporter.pipeline.observe import Observer
from exporter.pipeline.plan import Planned, planned_as
from exporter.pipeline.slot_needs import needed_of, slot_need
from exporter.pipeline.stage_options import rewrite_options
from exporter.records import Calibrated, OptionSearch, SlotNeed, Trial
from exporter.reduction import method
from exporter.rewrite import RewrittenProgram, rewrite
from exporter.schedule import ScheduleRequest
from exporter.targets import Array
from exporter.validation import Contender, fidelity

_CHUNK = 64  # images that are run together


def with_choices(planned: Planned, observe: Observer) -> Planned:
    """Choose what the recipe leaves open; the same plan where it leaves nothing open, or nothing is reduced.

    The same images and versions give the same choices.

    Raises:
        UsageError: there are no images to choose on, or the outputs cannot be compared with the dense model's.
    """
    recipe = planned.recipe
    options = method(recipe.method).open_options(recipe.method_options)
    percent = recipe.schedule.slots_for
    if planned.schedule.is_dense or not (options or percent is not None):
        return planned
    if options and recipe.model.outputs == "reduced":
        raise UsageError(
            f"method_options.{options[0]}: auto compares the outputs with the dense model's, and with --outputs "
            "reduced there is nothing to compare; give a value"
        )
    key, value = (
        (f"method_options.{options[0]}", "auto") if options else ("schedule.slots_for", f"{percent:g}")
    )
    images = calibration_set(planned, key, value)
    found = Calibrated(images=images.name, n=len(images.pixels_BCHW))
    for name in options:
        planned, search = _searched(planned, name, images, observe)
        found = replace(found, options={**found.options, name: search})
    if percent is not None:
        planned, slots = _with_slots(planned, percent, images, observe)
        found = replace(found, slots_for=percent, slots=slots)
    schedule = replace(planned.schedule, notes=(*planned.schedule.notes, *_notes(found)))
    return replace(planned, schedule=schedule, calibrated=found)


def _searched(
    planned: Planned, name: str, images: CalibrationSet, observe: Observer
) -> tuple[Planned, OptionSearch]:
    """The plan with the value of an option whose outputs are nearest to the dense model's, and all that were tried."""
    anatomy, is_logits = planned.anatomy, planned.model.output_names[0] == "logits"
    assert anatomy is not None
    values = method(planned.recipe.method).searched(len(anatomy.blocks))[name]
    with observe(f"search {name}") as note:
        dense = _run(dense_contender(planned), images)
        trials = []
        for value in values:
            tried = _with_option(planned, name, value)
            reduced = _run(reduced_contender(tried, _rewritten(tried)), images)
            close = fidelity(zip(dense, reduced, strict=True), logits=is_logits)
            loss = close.kl if is_logits else 1 - close.cosine_mean if not close.not_finite else None
            trials.append(Trial(value=value, loss=loss, top1_agreement=close.top1_agreement))
            note.progress(len(trials), len(values))
        best = min(trials, key=lambda each: np.inf if each.loss is None else each.loss)
        note(f"{best.value} of {len(trials)}")
    search = OptionSearch(chosen=best.value, measure="kl" if is_logits else "cosine", trials=tuple(trials))
    return _with_option(planned, name, best.value), search


def _with_option(planned: Planned, name: str, value: Any) -> Planned:
    options = {**planned.recipe.method_options, name: value}
    return planned_as(planned, replace(planned.recipe, method_options=options))


def _with_slots(
    planned: Planned, percent: float, images: CalibrationSet, observe: Observer
) -> tuple[Planned, tuple[SlotNeed, ...]]:
    """The plan with slots for all tokens that this percent of the images need, and what they need."""
    preprocess, recipe = planned.model.preprocess, planned.recipe
    assert preprocess is not None
    with observe("count slots") as note:
        inputs = (
            torch.from_numpy(as_input(recipe, pixels_BCHW, preprocess)) for pixels_BCHW in _chunks(images)
        )
        needed = needed_of(_rewritten(planned), inputs, planned.program.fixed_batch)
        slots = {
            block: int(np.quantile(counts_n.numpy(), percent / 100, method="inverted_cdf"))
            for block, counts_n in needed.items()
        }
        keeps, tokens = [], planned.schedule.tokens[0]
        for block in range(len(planned.schedule.tokens) - 1):
            tokens = min(tokens, slots.get(block, tokens))
            keeps.append(tokens)
        note(", ".join(f"{count} in block {block}" for block, count in slots.items()))
    chosen = planned_as(planned, replace(recipe, schedule=ScheduleRequest(keep_per_layer=tuple(keeps))))
    return chosen, tuple(slot_need(block, keeps[block], counts_n) for block, counts_n in needed.items())


def _rewritten(planned: Planned) -> RewrittenProgram:
    return rewrite(planned.program, planned.schedule, rewrite_options(planned))


def _run(contender: Contender, images: CalibrationSet) -> list[Array]:
    return [contender(pixels_BCHW) for pixels_BCHW in _chunks(images)]


def _chunks(images: CalibrationSet) -> Sequence[Array]:
    return np.split(images.pixels_BCHW, range(_CHUNK, len(images.pixels_BCHW), _CHUNK))


def _notes(found: Calibrated) -> tuple[str, ...]:
    """A line for every choice."""
    where = f"on {found.n} of {found.images}"
    lines = []
    for name, search in found.options.items():
        best = next(each for each in search.trials if each.value == search.chosen)
        loss = "not finite" if best.loss is None else f"{best.loss:.4g}"
        measure = "KL from the dense model" if search.measure == "kl" else "1 - cosine to the dense model"
        lines.append(f"{name}={search.chosen} is the best of {len(search.trials)} {where}: {measure} {loss}")
    if found.slots_for is not None:
        most = max((need.overflow for need in found.slots), default=0.0)
        lines.append(
            f"slots were chosen {where} for {found.slots_for:g} % of them: at most {most:.2f} % need more of a block"
        )
    return tuple(lines)
