"""The `ladder` command: several engines of one model, and when each is asked, certified on images without labels.

In: a recipe, and a schedule per engine. Out: a bundle of the last engine, with the bundles of the cheaper ones in its
folder `cheaper`, one inside the other, since ONNX Runtime reads weights only from a model's folder and folders in it:
ONNX models have their weights once, beside the cheapest one. `ladder.json` says when an answer is kept, and why.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.bundle import CHEAPER_FOLDER, Bundle, check_out_dir, place_of, stage_bundle, written_bundle
from exporter.errors import GateError, UsageError
from exporter.ladder import Cascade, needed_images
from exporter.pipeline.bundle_files import seal_bundle
from exporter.pipeline.choose import with_choices
from exporter.pipeline.compile import Compiled, Targets, compile_engines, targets_here
from exporter.pipeline.ladder_answers import answers
from exporter.pipeline.ladder_goal import LadderGoal
from exporter.pipeline.ladder_record import alone, certified_ladder, dense_gmacs, timed
from exporter.pipeline.ladder_timing import time_ladder
from exporter.pipeline.material import material
from exporter.pipeline.observe import Observer, silent
from exporter.pipeline.plan import Planned, gmacs, plan_export, planned_as, unguarded
from exporter.recipe import Recipe, check
from exporter.records import LADDER_FILE, LadderRecord, canonical_json
from exporter.schedule import ScheduleRequest
from exporter.validation import ImageSet

_LEAST_AGREEMENT = 0.9
"""That the images can at least certify where none is asked for."""


@dataclass(frozen=True, kw_only=True)
class LadderRequest:
    """What to build.

    Attributes:
        recipe: of every engine but for its schedule; `validate.data` says what the ladder is certified on, and
            `bench.race` false leaves out the timing.
        schedules: of the engines, in any order.
        goal: what the ladder has to reach.
    """

    recipe: Recipe
    schedules: tuple[ScheduleRequest, ...]
    goal: LadderGoal


@dataclass(frozen=True, kw_only=True)
class Laddered:
    """A ladder that is built.

    Attributes:
        bundle: of the last engine, with the others inside.
        record: what `ladder.json` says.
    """

    bundle: Bundle
    record: LadderRecord


def adaptive_request(recipe: Recipe) -> LadderRequest:
    """The ladder of an adaptive recipe: engines that save half, all and one and a half of what is saved in the mean.

    Raises:
        UsageError: the recipe saves nothing, or has gates that no ladder is checked against.
    """
    ratio = recipe.schedule.reduction_ratio
    if not ratio:
        raise UsageError(
            f"token_optimizer.reduction_ratio: expected more than 0 with adaptive: true, got {ratio}"
        )
    gates = recipe.validate
    limits = {
        "accuracy.max_drop": gates.accuracy.max_drop,
        "agreement.min": gates.agreement.min,
        "overflow.max": gates.overflow.max,
    }
    if given := [name for name, limit in limits.items() if limit is not None]:
        raise UsageError(
            f"validate.{given[0]}: an adaptive recipe says what is saved, and its agreement is found; remove it, or "
            "build one with the command ladder and its --agreement"
        )
    return LadderRequest(
        recipe=replace(recipe, adaptive=False),
        schedules=tuple(ScheduleRequest(reduction_ratio=round(part * ratio, 9)) for part in (0.5, 1.0, 1.5)),
        goal=LadderGoal(saving=ratio),
    )


def ladder(
    asked: LadderRequest,
    out_dir: str | Path | None = None,
    *,
    force: bool = False,
    observe: Observer = silent,
) -> Laddered:
    """Build the engines, certify when the answer of a cheaper one is kept, and time them alone and together.

    Args:
        asked: what to build.
        out_dir: the folder; if not given `artifacts/` and the recipe's name, or MODEL-ladder.
        force: replace the bundle that is there.
        observe: receives the progress of every stage.

    Raises:
        UsageError: something is asked that cannot be, or there are too few different images for the agreement.
        GateError: no answer of a cheaper engine may be kept, or the ladder is slower than `bench.min_speedup`.
        ExportError: whatever an export raises. In every case nothing new stays on the disk, and what was there does.
    """
    recipe = check(asked.recipe)
    _check(asked)
    targets = targets_here(recipe)
    if out_dir is not None:
        check_out_dir(out_dir, force)
    try:
        rungs = _planned(asked, observe)
    except UsageError as error:
        if asked.goal.saving is None or "reduction_ratio" not in str(error):
            raise
        raise UsageError(
            f"adaptive: the cheapest engine saves one and a half of the ratio: {error}"
        ) from error
    goal = asked.goal.of(rungs[0])
    if goal.router == "redundancy":
        rungs = [*(replace(each, redundancy=True) for each in rungs[:-1]), rungs[-1]]
    name = recipe.name or f"{rungs[-1].model.name}-ladder"
    folder = Path(out_dir) if out_dir is not None else Path("artifacts") / name
    check_out_dir(folder, force)
    images = _images(recipe, rungs[-1])
    _require_images(len(images.names), "images", images, goal)
    with stage_bundle(folder, force) as staging:
        engines = _compiled(rungs, targets, staging, observe)
        found = answers(images, engines, goal, observe)
        _require_images(len(found.sizes_N), "different images", images, goal)
        with observe("certify") as note:
            record = certified_ladder(
                alone(engines, found),
                found,
                goal,
                target=recipe.targets[0],
                dense_gmacs=dense_gmacs(engines[-1]),
            )
            note(f"{100 * record.macs:.1f} % of the dense multiply-accumulates")
        if recipe.bench.race is not False:
            with observe("time"):
                runners = [each.runners[record.target] for each in engines]
                cascade = Cascade(runners=runners, threshold=record.threshold, router=record.router)
                record = timed(record, time_ladder(cascade, engines[-1], images))
        _require_speed(recipe.bench.min_speedup, record)
        with observe("bundle") as note:
            (staging / LADDER_FILE).write_bytes(canonical_json(record))
            manifest = seal_bundle(engines[-1], None, None)
            note(str(folder))
    bundle = written_bundle(folder if folder.exists() else place_of(folder), manifest)
    return Laddered(bundle=bundle, record=record)


def _check(asked: LadderRequest) -> None:
    recipe = asked.recipe
    agreement = asked.goal.agreement
    if agreement is not None and not 0.5 <= agreement < 1:
        raise UsageError(
            f"agreement: expected a percent from 50 to below 100, such as 99%, got {100 * agreement:g}%"
        )
    if len(set(asked.schedules)) < 2:
        raise UsageError("ladder: expected two schedules or more that differ, such as --r 0,8,16")
    if recipe.model.tower == "text" or recipe.with_text:
        raise UsageError("ladder: expected --tower image: texts are not routed")
    if len(recipe.targets) != 1:
        raise UsageError(
            f"ladder: expected one target, whose answers are certified, got {','.join(recipe.targets)}"
        )
    if recipe.prepare:
        raise UsageError(
            "ladder: an engine that is only prepared here gives no answers to certify; leave --prepare out"
        )


def _planned(asked: LadderRequest, observe: Observer) -> list[Planned]:
    """The plan of every engine, cheapest first; the model is loaded once."""
    recipe = unguarded(asked.recipe)
    recipes = [replace(recipe, schedule=each) for each in dict.fromkeys(asked.schedules)]
    first = plan_export(next(each for each in recipes if not each.schedule.is_dense), observe)
    _check_model(first)
    found = [with_choices(planned_as(first, each), observe) for each in recipes]
    found.sort(key=lambda each: gmacs(each, 0).reduced)
    counts = [gmacs(each, 0).reduced for each in found]
    for cheaper, dearer, one, other in zip(counts, counts[1:], found, found[1:], strict=False):
        if cheaper == dearer:
            raise UsageError(
                f"ladder: expected engines that differ in what they compute, got {one.schedule.requested} and "
                f"{other.schedule.requested}, which merge alike; leave one of them out"
            )
    for planned in found:
        assert planned.anatomy is not None
        planned.anatomy.check_mergeable(
            planned.schedule.removed,
            dense_outputs=recipe.model.outputs == "dense",
            reduced_outputs=recipe.model.outputs == "reduced",
        )
    return found


def _check_model(planned: Planned) -> None:
    model = planned.model
    if model.preprocess is None:
        raise UsageError(f"ladder: {model.name} {model.why_no_photos}")


def _images(recipe: Recipe, planned: Planned) -> ImageSet:
    """The images to certify on; labels are neither needed nor read."""
    asked = replace(recipe.validate, unlabelled=recipe.validate.data is not None)
    found = material(asked, recipe.model, planned.model, planned.first_output)
    if found is None or found.images is None:
        raise UsageError(
            "ladder: expected images like those that will be served, to certify on; give a folder or a CSV file of "
            "them with --data"
        )
    return found.images


def _require_images(count: int, what: str, images: ImageSet, goal: LadderGoal) -> None:
    needed = needed_images(goal.agreement or _LEAST_AGREEMENT)
    if count >= needed:
        return
    if goal.agreement is None:
        raise UsageError(
            f"data: expected at least {needed} {what} to choose a ladder's threshold on, got {count} in {images.name}"
        )
    raise UsageError(
        f"data: expected at least {needed} {what} to certify an agreement of {100 * goal.agreement:g} %, since fewer "
        f"would not even if all agreed, got {count} in {images.name}; give more, or a lower --agreement"
    )


def _compiled(rungs: Sequence[Planned], targets: Targets, staging: Path, observe: Observer) -> list[Compiled]:
    """Build every engine, the cheapest into the innermost folder, and seal all bundles but the last one."""
    found = list[Compiled]()
    for place, planned in enumerate(rungs):
        folder = staging.joinpath(*[CHEAPER_FOLDER] * (len(rungs) - 1 - place))
        folder.mkdir(parents=True, exist_ok=True)
        shared = "/".join((".", *[CHEAPER_FOLDER] * place))
        compiled = compile_engines(replace(planned, shared_folder=shared), targets, folder, observe)
        if place + 1 < len(rungs):
            seal_bundle(compiled, None, None)
        found.append(compiled)
    return found


def _require_speed(least: float | None, record: LadderRecord) -> None:
    if least is None:
        return
    assert record.timing is not None
    speedup = record.timing.speedup
    if speedup.value < least:
        low, high = speedup.interval
        raise GateError(
            f"speed: the ladder is {speedup.value:.2f}x as fast as {record.rungs[-1].name} (95 % interval {low:.2f} to "
            f"{high:.2f}), expected at least {least:g}x; merge more, or lower --min-speedup"
        )
