"""Values with one entry per original token after reductions, against the definition: each token's group, looked up."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter.errors import UnsupportedGraphError
from exporter.forms import Forms
from exporter.schedule import ScheduleRequest
from exporter.signature import TensorSpec
from exporter.targets import target
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.openvino.options import OpenVinoOptions
from exporter.validation import TOLERANCES, groups_of, run_eager, verify
from exporter.validation.follow import follow_matches
from tests.support.compiled import MIN_MARGIN, Captured, capture_model, max_abs_error
from tests.support.dense_models import GRID, DepthHead, JoinedTaps, SeveralTaps, Tokens, TorchvisionTokens
from tests.support.eager_merge import trace_eager_merged
from tests.support.families import IMAGE_SIZE, PATCH_SIZE, PATCHES, WIDTH, family, randomise
from tests.support.tiny_vit import request_of

MERGED = (4, 5, 0, 6)
REQUEST = ScheduleRequest(r_per_layer=MERGED)

MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm": lambda: Tokens(family("timm_dinov2_registers").build()),
    "torchvision": lambda: TorchvisionTokens(family("torchvision_vit").build()),
    "hf": lambda: Tokens(family("hf_dinov2").build()),
    "several taps": lambda: SeveralTaps(family("timm_dinov2_registers").build()),
    "joined taps": lambda: JoinedTaps(family("timm_vit").build()),
    "depth": lambda: DepthHead(family("timm_vit").build()),
}
SEEDS = {"timm": 0, "torchvision": 2, "hf": 5, "several taps": 0, "joined taps": 1, "depth": 1}
"""Which leave no near tie."""


def built(name: str) -> nn.Module:
    model = MODELS[name]()
    randomise(model, SEEDS[name])
    return model.eval().requires_grad_(False)


@cache
def captured(name: str) -> Captured:
    return capture_model(built(name))


def images(name: str) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + SEEDS[name])
    return torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)


@cache
def expected(name: str, method: str = "tome") -> tuple[Tensor, ...]:
    """The reference in fp64."""
    run = trace_eager_merged(built(name).double(), images(name).double(), MERGED, method)
    assert run.margin > MIN_MARGIN
    return run.output if isinstance(run.output, tuple) else (run.output,)


def test_nothing_changes_where_nothing_merges() -> None:
    program = captured("depth").compile(ScheduleRequest(), dense_outputs=True)

    (result,) = program(images("depth"))

    assert max_abs_error(result, built("depth")(images("depth"))) < 1e-5


@pytest.mark.parametrize(("name", "method"), [*((name, "tome") for name in MODELS), ("hf", "pitome")])
def test_rewritten_program_equals_the_definition(name: str, method: Any) -> None:
    program = captured(name).compile(REQUEST, method, dense_outputs=True)

    results = program(images(name))[: program.outputs]

    for result, tensor in zip(results, expected(name, method), strict=True):
        assert max_abs_error(result, tensor) < 1e-5


def test_fused_kernels_leave_what_the_definition_says() -> None:
    """On a CPU a kernel is its definition; what is around it is the same program."""
    forms = Forms().choose({"merge": "kernels"})
    program = captured("several taps").compile(REQUEST, dense_outputs=True, forms=forms)

    results = program(images("several taps"))[: program.outputs]

    for result, tensor in zip(results, expected("several taps"), strict=True):
        assert max_abs_error(result, tensor) < 1e-5


def test_a_dropped_token_has_the_value_of_the_one_that_its_match_names() -> None:
    model = captured("timm")
    program = model.compile(REQUEST, "evit", dense_outputs=True, method_options={"fused": False})
    output_BTC, *records = program(images("timm"))

    groups_BT = groups_of(program, records, output_BTC.shape[1])[-1]

    alike_BTT = (output_BTC.unsqueeze(2) == output_BTC.unsqueeze(1)).all(dim=3)
    assert torch.equal(alike_BTT, groups_BT.unsqueeze(2) == groups_BT.unsqueeze(1))


@pytest.mark.parametrize("name", ["timm", "several taps", "depth"])
def test_without_dense_outputs_the_refusal_names_the_option(name: str) -> None:
    with pytest.raises(UnsupportedGraphError, match=r"use --r 0 .*, or --outputs dense, which gives every"):
        captured(name).compile(REQUEST)


ENGINES = [
    pytest.param("onnx", OnnxOptions(), "joined taps", id="onnx"),
    pytest.param("openvino", OpenVinoOptions(), "depth", id="openvino"),
]


@pytest.mark.parametrize(("engine", "options", "name"), ENGINES)
def test_engines_equal_the_definition_and_pass(engine: str, options: Any, name: str, tmp_path: Path) -> None:
    program = captured(name).compile(REQUEST, dense_outputs=True)
    pixels, (tensor,) = images(name).numpy(), expected(name)
    output = TensorSpec(name="features", dtype="float32", shape=tuple(tensor.shape))
    request = request_of(options)
    request = replace(request, signature=request.signature.with_outputs((output,)))

    artifact = target(engine).emit(program, request, tmp_path)

    result = verify(program, artifact, run_eager(program, {"noise": {"images": pixels}}), TOLERANCES["fp32"])
    assert result.passed
    assert result.match_agreement == (1.0,) * 3
    assert max_abs_error(torch.from_numpy(artifact.runner(pixels)["features"]), tensor) < 1e-4


def test_another_decision_of_an_engine_is_followed_to_the_outputs() -> None:
    program = captured("depth").compile(REQUEST, dense_outputs=True)
    _, *records = program(images("depth"))
    other = records[0].clone()
    other[:, -1] = (other[:, -1] + 1) % 33

    (followed,), regret = follow_matches(program, [images("depth")], [other, *records[1:]])

    assert regret > 1e-3
    assert not torch.allclose(followed, program(images("depth"))[0], atol=1e-4)


def test_what_runs_on_all_tokens_again_is_counted_with_all_of_them() -> None:
    model = captured("depth")
    schedule = model.schedule(REQUEST)
    dense = model.compile(ScheduleRequest(), dense_outputs=True)

    macs = model.anatomy.workload.macs

    maps = GRID**2 * (2 * WIDTH * 8 + 9 * 8 * 8) + (2 * GRID) ** 2 * 9 * 8
    assert model.anatomy.workload.fixed == PATCHES * 3 * PATCH_SIZE**2 * WIDTH + maps
    readouts = 2 * WIDTH**2  # they run on the patches alone, and the count takes all tokens
    assert macs(schedule.tokens[:1] * 5) - readouts == dense.executed_macs
    assert model.anatomy.workload.per_token[2] - model.anatomy.workload.per_token[1] == WIDTH**2
