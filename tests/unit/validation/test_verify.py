"""The proof of an engine, shown honest engines, flipped near-ties, and engines that merge wrongly."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import EXAMPLE_BATCH
from exporter.reduction import method
from exporter.reduction.match import Match
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import ScheduleRequest
from exporter.targets import Artifact
from exporter.validation import (
    TOLERANCES,
    Cases,
    ParityResult,
    Tolerances,
    along_matches,
    compare,
    run_eager,
    verify,
)
from tests.support.compiled import Captured, capture_model, captured_family
from tests.support.eager_state import COMPARED
from tests.support.fake_runner import FakeRunner
from tests.support.families import family

Arrays = dict[str, npt.NDArray[Any]]

METHODS = ("tome", "pitome")
FP32 = TOLERANCES["fp32"]


def fake_engine(
    program: RewrittenProgram, results: int, *, flipped: bool = False, offset: float = 0.0
) -> FakeRunner:
    """Runs a program in eager PyTorch, in place of an engine.

    Args:
        program: what it computes.
        results: how many results it returns.
        flipped: whether it reports that the first source of the first match went to the last destination.
        offset: added to the outputs.
    """

    def compute(images: npt.NDArray[Any]) -> Arrays:
        found = [each.clone() for each in program(torch.from_numpy(images))]
        found[0] += offset
        if flipped and results > 1:
            r = program.merged[program.merging_blocks[0]]
            found[1][:, -r] = found[1].shape[1] - 2 * r - 1
        return {f"result_{index}": each.numpy() for index, each in enumerate(found[:results])}

    return FakeRunner(compute=compute)


def artifact(program: RewrittenProgram, **behaviour: Any) -> Artifact:
    probe = fake_engine(program, 1 + len(program.merging_blocks), **behaviour)
    runner = fake_engine(program, 1, **behaviour)
    return Artifact(target="fake", file="fake", opset=None, runner=runner, probe=probe)


def proven(
    program: RewrittenProgram,
    engine: Artifact,
    inputs: Mapping[str, npt.NDArray[Any]],
    tolerances: Tolerances,
) -> ParityResult:
    return verify(program, engine, run_eager(program, cases(inputs)), tolerances)


def cases(images: Mapping[str, npt.NDArray[Any]]) -> Cases:
    return {case: {"images": each} for case, each in images.items()}


def photo() -> Mapping[str, npt.NDArray[np.float32]]:
    return {"photo": family("timm_vit").images(EXAMPLE_BATCH).numpy()}


@cache
def compiled(name: str) -> RewrittenProgram:
    return captured_family("timm_vit").compile(ScheduleRequest(r=4), name)


@cache
def all_patches_equal() -> Captured:
    """A ViT without positions: a flat image makes all its patch tokens equal, so that every match is a tie."""
    model = family("timm_vit").model()
    assert isinstance(model.pos_embed, nn.Parameter)
    model.pos_embed.zero_()
    return capture_model(model)


@pytest.mark.parametrize("name", METHODS)
def test_honest_engine_passes(name: str) -> None:
    found = proven(compiled(name), artifact(compiled(name)), photo(), FP32)

    assert found.passed
    assert found.max_abs_error == 0.0
    assert found.match_agreement == (1.0,) * len(compiled(name).merging_blocks)
    assert found.followed == ()
    assert found.tie_regret == 0.0


@pytest.mark.parametrize("name", METHODS)
def test_wrong_numbers_fail(name: str) -> None:
    found = proven(compiled(name), artifact(compiled(name), offset=1e-3), photo(), FP32)

    assert not found.passed
    assert found.max_abs_error == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_flipped_tie_passes_and_is_reported(name: str) -> None:
    program = all_patches_equal().compile(ScheduleRequest(r=4), name)
    inputs = {**photo(), "flat": np.full((EXAMPLE_BATCH, 3, 24, 24), 0.3, dtype=np.float32)}
    flipped = artifact(program, flipped=True)

    found = proven(program, flipped, {"flat": inputs["flat"]}, FP32)

    assert found.passed, found.shortfalls
    assert found.followed == ("flat",)
    assert found.match_agreement[0] < 1
    assert found.tie_regret < FP32.tie


@pytest.mark.parametrize("name", METHODS)
def test_flipped_match_that_is_no_tie_fails(name: str) -> None:
    found = proven(compiled(name), artifact(compiled(name), flipped=True), photo(), FP32)

    assert not found.passed
    assert found.followed == ("photo",)
    assert found.tie_regret > 100 * FP32.tie


@pytest.mark.parametrize(("asked", "engine"), [METHODS, METHODS[::-1]])
def test_engine_of_another_method_fails(asked: str, engine: str) -> None:
    """Its matches may be none that the method could make at all."""
    found = proven(compiled(asked), artifact(compiled(engine)), photo(), FP32)

    assert not found.passed


def with_match(change: str, name: str) -> RewrittenProgram:
    """The program of a method whose every match is broken in a consistent way: reported and executed alike."""
    sound = method(name)

    def broken(keys_BHND: Tensor, **options: Any) -> Match:
        kept_BK, source_BR, target_BR, *_ = sound.decide(keys_BHND, **options)
        if change == "half of the metric":
            return sound.decide(keys_BHND[..., : keys_BHND.shape[-1] // 2], **options)
        if change == "token kept twice":
            kept_BK = torch.cat((kept_BK[:, :1], kept_BK[:, 2:3], kept_BK[:, 2:]), dim=1)
        elif change == "order of kept tokens":
            kept_BK = torch.cat((kept_BK[:, :1], kept_BK[:, 2:3], kept_BK[:, 1:2], kept_BK[:, 3:]), dim=1)
        elif change == "source twice":
            source_BR = torch.cat((source_BR[:, :1], source_BR[:, :1], source_BR[:, 2:]), dim=1)
            target_BR = torch.cat((target_BR[:, :1], target_BR[:, :1], target_BR[:, 2:]), dim=1)
        return Match(kept_BK, source_BR, target_BR)

    custom = replace(sound, decide=broken)
    captured = captured_family("timm_vit")
    options = RewriteOptions(method=custom, method_options=COMPARED.get(name, {}), batch=EXAMPLE_BATCH)
    return rewrite(captured.program, captured.schedule(ScheduleRequest(r=4)), options)


@pytest.mark.parametrize("name", METHODS)
def test_wrong_matches_fail_on_their_regret_alone(name: str) -> None:
    engine = artifact(with_match("half of the metric", name))

    found = proven(compiled(name), engine, photo(), FP32)

    assert found.max_abs_error < FP32.max_abs_error, "along the engine's own matches the numbers agree"
    assert found.followed == ("photo",)
    assert min(found.match_agreement) < 1
    assert found.tie_regret > 100 * FP32.tie
    assert [phrase.split()[1] for phrase in found.shortfalls] == ["regret"]
    assert replace(found, tolerances=replace(FP32, tie=2.0)).passed


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("change", ["token kept twice", "order of kept tokens", "source twice"])
def test_engine_that_loses_or_reorders_tokens_fails(change: str, name: str) -> None:
    """Its numbers follow from its matches, so only the matches can tell."""
    engine = with_match(change, name)

    assert not proven(compiled(name), artifact(engine), photo(), FP32).passed


@pytest.mark.parametrize("name", METHODS)
def test_outputs_along_matches_are_what_the_engine_computes(name: str) -> None:
    engine, own = (
        artifact(with_match("half of the metric", name)),
        run_eager(compiled(name), cases(photo()))["photo"],
    )

    (along,) = along_matches(compiled(name), engine, own).outputs
    got = engine.runner(own.inputs)["result_0"]

    assert compare(got, along.numpy()).max_abs_error < 1e-5
    assert compare(got, own.outputs[0].numpy()).max_abs_error > 1e-3


def test_match_that_cannot_be_read_fails_on_that_input() -> None:
    honest = artifact(compiled("tome"))
    assert honest.probe is not None
    inputs = {"photo": photo()["photo"], "negative": -photo()["photo"]}

    def probe(given: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        assert honest.probe is not None
        results = dict(honest.probe(given))
        if np.array_equal(given["images"], inputs["negative"]):
            results["result_1"] = np.full_like(results["result_1"], 10**6)
        return results

    found = proven(compiled("tome"), replace(honest, probe=probe), inputs, FP32)

    assert found.tie_regret == float("inf")
    assert not found.passed
    assert found.match_agreement == (0.5,) * len(compiled("tome").merging_blocks)


def test_engine_without_a_probe_is_judged_by_its_numbers() -> None:
    silent = replace(artifact(compiled("tome")), probe=None)
    wrong = replace(artifact(compiled("pitome")), probe=None)

    assert proven(compiled("tome"), silent, photo(), FP32).match_agreement == ()
    assert proven(compiled("tome"), silent, photo(), FP32).passed
    assert not proven(compiled("tome"), wrong, photo(), FP32).passed
