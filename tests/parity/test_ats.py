"""ATS with slots, some of them empty, against its definition without slots, where every image keeps its own number."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from exporter.forms import FUNCTIONS, Forms
from exporter.reduction.match import record_match
from exporter.schedule import ScheduleRequest
from exporter.validation import TOLERANCES, needed_tokens, run_eager, verify
from exporter.validation.follow import agreements, follow_matches
from tests.support.compiled import MIN_MARGIN, captured_family, max_abs_error
from tests.support.eager_merge import EagerRun, trace_eager_reduced
from tests.support.eager_state import Reduction
from tests.support.engines import ENGINES, Emit
from tests.support.families import family

REQUEST = ScheduleRequest(r_per_layer=(0, 6, 20, 0))
"""Block 1 draws fewer patches than it has slots, block 2 more."""

KINDS = [
    pytest.param("timm_vit", "token", id="class token"),
    pytest.param("torchvision_vit", "ascending", id="folded token axis"),
    pytest.param("hf_dinov2_registers", "ascending", id="registers"),
    pytest.param("timm_mean_pool", "token", id="mean of the patches"),
]


@cache
def one_by_one(name: str, order: str, images: int = 2) -> tuple[Tensor, tuple[EagerRun, ...]]:
    """Images whose every decision is clear, and the definition on each of them alone, in fp64."""
    model = family(name).model().double()
    asked = Reduction(removed=(0, 6, 20, 0), method="ats", options={"order": order}, proportional=False)
    found = [
        (image, run)
        for image in family(name).images(12).split(1)
        if (run := trace_eager_reduced(model, image.double(), asked)).margin > MIN_MARGIN
    ][:images]
    assert len(found) == images
    return torch.cat([image for image, _ in found]), tuple(run for _, run in found)


def outputs(runs: tuple[EagerRun, ...]) -> Tensor:
    return torch.cat([run.output for run in runs])


@pytest.mark.parametrize(("name", "order"), KINDS)
def test_rewritten_program_equals_the_method_without_slots(name: str, order: str) -> None:
    images, runs = one_by_one(name, order)
    program = captured_family(name).compile(
        REQUEST, "ats", proportional=False, method_options={"order": order}
    )

    output, *records = program(images)

    assert max_abs_error(output, outputs(runs)) < 1e-5
    for block, match in program.matches(records).items():
        assert match.absent is not None
        stay = (match.absent == 0).sum(dim=1)
        assert stay.tolist() == [len(run.matchings[block][0].groups) for run in runs]


def test_inputs_leave_slots_empty_and_ask_for_more_than_there_are() -> None:
    images, runs = one_by_one("timm_vit", "ascending")
    program = captured_family("timm_vit").compile(REQUEST, "ats", proportional=False)
    first, second = program.matches(program(images)[1:]).values()

    assert first.absent is not None
    assert first.absent.any()
    assert second.absent is not None
    assert not second.absent.any()
    assert [len(run.matchings[2][0].groups) for run in runs] == [11, 11]
    needed = needed_tokens(program, images)
    assert needed[1].tolist() == [len(run.matchings[1][0].groups) for run in runs]
    assert (needed[2] > 11).all()


FORMS = [
    *(pytest.param(Forms().choose({"mask": mask}), id=mask) for mask in FUNCTIONS["mask"]),
    pytest.param(Forms(selection="one-hot"), id="one-hot"),
    pytest.param(Forms(ranking="count"), id="count"),
    pytest.param(Forms(merge="kernels", metric="columns", stem="product"), id="kernels"),
]


@pytest.mark.parametrize("forms", FORMS)
def test_every_form_equals_the_method_without_slots(forms: Forms) -> None:
    images, runs = one_by_one("timm_mean_pool", "ascending")
    captured = captured_family("timm_mean_pool")

    program = captured.compile(REQUEST, "ats", proportional=False, forms=forms)

    assert max_abs_error(program(images)[0], outputs(runs)) < 1e-5


@pytest.mark.parametrize("emit", ENGINES)
def test_engine_draws_the_same_tokens(emit: Emit, tmp_path: Path) -> None:
    images, runs = one_by_one("timm_vit", "ascending")
    program = captured_family("timm_vit").compile(REQUEST, "ats", proportional=False)
    artifact = emit(program, tmp_path)

    result = verify(
        program,
        artifact,
        run_eager(program, {"images": {"images": images.numpy()}}),
        TOLERANCES["fp32"],
    )

    assert result.passed
    assert result.match_agreement == (1.0, 1.0)
    output = torch.from_numpy(artifact.runner(images.numpy())["logits"])
    assert max_abs_error(output, outputs(runs)) < 1e-4


def test_slot_that_an_engine_leaves_empty_is_followed_and_regretted() -> None:
    images, _ = one_by_one("timm_vit", "ascending")
    program = captured_family("timm_vit").compile(REQUEST, "ats", proportional=False)
    own_output, *records = program(images)
    (match, *_) = program.matches(records).values()
    assert match.absent is not None
    last = int((match.absent[0] == 0).sum()) - 1
    absent = match.absent.clone()
    absent[0, last] = 1
    kept_BK = match.kept_BK.clone()
    kept_BK[0, last:] = kept_BK[0, last:].sort().values
    other = record_match(match._replace(kept_BK=kept_BK, absent=absent))

    (own, *_), none = follow_matches(program, [images], records)
    (changed, *_), regret = follow_matches(program, [images], [other, *records[1:]])

    assert torch.equal(own, own_output)
    assert none < 1e-6
    assert regret > 1e-3
    assert agreements(program, [other, *records[1:]], records)[0] < 1
    assert not torch.allclose(changed, own_output, atol=1e-5)
