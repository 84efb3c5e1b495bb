"""What is chosen on images without labels is what plain loops over the eager model choose."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from exporter.errors import UsageError
from exporter.models import ModelRequest, Preprocess, crop_image, normalize
from exporter.pipeline.choose import with_choices
from exporter.pipeline.contenders import dense_contender
from exporter.pipeline.observe import silent
from exporter.pipeline.plan import Planned, plan_export, planned_as
from exporter.pipeline.slot_needs import slot_needs
from exporter.pipeline.stage_options import rewrite_options
from exporter.recipe import Calibration, Recipe
from exporter.records import SlotNeed
from exporter.rewrite import rewrite
from exporter.schedule import ScheduleRequest
from exporter.validation import collect, open_images
from tests.support.eager_merge import trace_eager_reduced
from tests.support.eager_state import Reduction
from tests.support.families import BLOCKS, family

BATCH, COUNT = 3, 8  # of the saved program: the images are no multiple of it
PREPROCESS = Preprocess(
    image_size=(24, 24),
    interpolation="bicubic",
    crop_fraction=1.0,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.25),
)


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A classifier of a fixed batch, captured once, its own module, and images."""

    planned: Planned
    module: nn.Module
    images: Tensor
    folder: Path

    def chosen(self, method: str, schedule: ScheduleRequest, **options: str) -> Planned:
        return with_choices(planned_as(self.planned, self.asking(method, schedule, **options)), silent)

    def asking(self, method: str, schedule: ScheduleRequest, **options: str) -> Recipe:
        return replace(self.planned.recipe, method=method, schedule=schedule, method_options=options)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    vit = family("timm_vit")
    module = vit.model()
    with torch.no_grad():
        program = torch.export.export(module, (vit.images(BATCH),))
    files = {"preprocess.json": json.dumps(PREPROCESS.to_dict())}
    torch.export.save(program, folder / "tiny.pt2", extra_files=files)
    (folder / "photos").mkdir()
    generator = np.random.default_rng(5)
    pixels = []
    for number in range(COUNT):
        photo = Image.fromarray(
            generator.integers(0, 256, (6, 6, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        )
        photo.save(folder / "photos" / f"{number}.png")
        pixels.append(normalize(crop_image(photo, PREPROCESS), PREPROCESS))
    recipe = Recipe(
        model=ModelRequest(model=str(folder / "tiny.pt2")),
        batch=BATCH,
        calibration=Calibration(data=str(folder / "photos")),
    )
    images = torch.from_numpy(np.stack(pixels))
    return Tiny(planned=plan_export(recipe), module=module, images=images, folder=folder)


def divergence(dense_BC: Tensor, reduced_BC: Tensor) -> float:
    dense_log_BC, reduced_log_BC = dense_BC.double().log_softmax(1), reduced_BC.double().log_softmax(1)
    return float((dense_log_BC.exp() * (dense_log_BC - reduced_log_BC)).sum(1).mean())


# An option that is auto ---------------------------------------------------------------------------------------------


def test_split_is_the_one_of_all_whose_outputs_are_nearest_to_the_dense_models(tiny: Tiny) -> None:
    found = tiny.chosen("tofu", ScheduleRequest(r=6), split="auto")

    with torch.no_grad():
        dense_BC = tiny.module(tiny.images)
    runs = [
        trace_eager_reduced(
            tiny.module,
            tiny.images,
            Reduction(removed=(6,) * BLOCKS, method="tofu", options={"split": split}),
        ).output
        for split in range(BLOCKS + 1)
    ]
    losses = [divergence(dense_BC, run) for run in runs]
    agreements = [100 * float((run.argmax(1) == dense_BC.argmax(1)).double().mean()) for run in runs]
    assert found.calibrated is not None
    assert (found.calibrated.images, found.calibrated.n) == ("photos", COUNT)
    search = found.calibrated.options["split"]
    assert [each.value for each in search.trials] == list(range(BLOCKS + 1))
    assert [each.loss for each in search.trials] == pytest.approx(losses, rel=1e-3)
    assert [each.top1_agreement for each in search.trials] == pytest.approx(agreements)
    best = int(np.argmin(losses))
    assert search.chosen == best
    assert found.recipe.method_options == {"split": best}
    assert found.schedule.dropped == tuple(6 if block < best else 0 for block in range(BLOCKS))
    assert found.schedule.notes == (
        f"split={best} is the best of {BLOCKS + 1} on {COUNT} of photos: KL from the dense model "
        f"{search.trials[best].loss:.4g}",
    )


def test_recipe_that_leaves_nothing_open_is_left_alone(tiny: Tiny) -> None:
    plan = planned_as(tiny.planned, tiny.asking("tofu", ScheduleRequest(r=6)))

    assert with_choices(plan, silent) is plan


def test_nothing_is_searched_where_nothing_is_reduced(tiny: Tiny) -> None:
    assert tiny.chosen("tofu", ScheduleRequest(), split="auto").calibrated is None


def test_plan_says_that_an_option_is_still_open(tiny: Tiny) -> None:
    planned = plan_export(tiny.asking("tofu", ScheduleRequest(r=6), split="auto"))

    assert planned.schedule.dropped == (6, 6, 6, 0)
    assert planned.schedule.notes == (
        "method_options.split: auto is searched for on images when this is built; shown is the default",
    )


def test_outputs_that_cannot_be_compared_are_refused(tiny: Tiny) -> None:
    recipe = tiny.asking("tofu", ScheduleRequest(r=6), split="auto")
    recipe = replace(recipe, model=replace(recipe.model, outputs="reduced"))

    with pytest.raises(UsageError, match=r"^method_options\.split: auto compares .* give a value$"):
        with_choices(planned_as(tiny.planned, recipe), silent)


def test_images_to_choose_on_are_asked_for(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.pipeline.calibration.training_images", lambda _: None)
    recipe = tiny.asking("tofu", ScheduleRequest(r=6), split="auto")
    recipe = replace(recipe, calibration=Calibration())

    with pytest.raises(
        UsageError, match=r"^calibration: method_options\.split auto needs images .*--calibration"
    ):
        with_choices(planned_as(tiny.planned, recipe), silent)


# Slots --------------------------------------------------------------------------------------------------------------


def needs(tiny: Tiny, removed: tuple[int, ...]) -> dict[int, list[int]]:
    """By block, how many tokens each image keeps by the definition."""
    asked = Reduction(removed=removed, method="ats", proportional=False)
    runs = [trace_eager_reduced(tiny.module, image, asked) for image in tiny.images.split(1)]
    return {
        block: [len(run.matchings[block][0].groups) for run in runs] for block, r in enumerate(removed) if r
    }


@pytest.mark.parametrize(("percent", "may_overflow"), [(100.0, 0), (75.0, 2)])
def test_slots_are_enough_for_the_images_that_they_are_asked_for(
    tiny: Tiny, percent: float, may_overflow: int
) -> None:
    found = tiny.chosen("ats", ScheduleRequest(slots_for=percent, at=(1, 2)))

    counts = {block: sorted(each) for block, each in needs(tiny, (0, 1, 1, 0)).items()}
    slots = {block: each[len(each) - 1 - may_overflow] for block, each in counts.items()}
    assert len({*counts[1], *counts[2]}) > 2, "these images all need the same"
    assert found.schedule.tokens == (37, 37, slots[1], slots[2], slots[2])
    assert found.recipe.schedule == ScheduleRequest(keep_per_layer=(37, slots[1], slots[2], slots[2]))
    assert found.calibrated is not None
    assert found.calibrated.slots_for == percent
    assert found.calibrated.slots == tuple(
        SlotNeed(
            block=block,
            slots=slots[block],
            n=COUNT,
            overflow=100 * sum(each > slots[block] for each in counts[block]) / COUNT,
            most=counts[block][-1],
            nearly_all=counts[block][-1],
        )
        for block in (1, 2)
    )
    assert all(need.overflow <= 100 - percent for need in found.calibrated.slots)


def test_images_that_are_measured_are_counted_against_the_slots(tiny: Tiny, tmp_path: Path) -> None:
    request = ScheduleRequest(keep_per_layer=(37, 36, 8, 8))
    planned = planned_as(tiny.planned, tiny.asking("ats", request))
    images = open_images(tiny.folder / "photos", None)
    outputs = collect(images, PREPROCESS, {"dense": dense_contender(planned)}, tmp_path)

    found = slot_needs(planned, rewrite(planned.program, planned.schedule, rewrite_options(planned)), outputs)

    counts = needs(tiny, (0, 1, 28, 0))
    assert [each.block for each in found] == [1, 2]
    assert found[0].overflow == 0
    assert found[0].most == max(counts[1])
    assert found[1].slots == 8
    assert found[1].overflow == 100.0


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        pytest.param("tome", {}, "method tome keeps as many tokens of every image", id="fixed"),
        pytest.param("ats", {"order": "token"}, "no more tokens than there are slots", id="samples"),
    ],
)
def test_slots_are_refused_where_no_image_says_how_many_it_needs(
    tiny: Tiny, method: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=rf"^schedule\.slots_for: .*{message}"):
        plan_export(tiny.asking(method, ScheduleRequest(slots_for=99.0), **options))
