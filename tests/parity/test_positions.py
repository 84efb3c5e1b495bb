"""Models with rotary tables and position biases: the rewritten program against the models' own modules."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from exporter.forms import Forms
from exporter.schedule import ScheduleRequest
from exporter.targets import target
from tests.support.compiled import MIN_MARGIN, Captured, capture_model, max_abs_error
from tests.support.eager_positions import merged_at_own_positions
from tests.support.families import TIMM, OneTensorOut, of_transformers, randomise
from tests.support.tiny_vit import request_of

REMOVED = (6, 5, 4)
TINY = TIMM | {"depth": len(REMOVED), "global_pool": "token"}


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A small tower of one kind.

    Attributes:
        build: makes the library's own module.
        prefix: number of prefix tokens.
        seed: of weights and images; one that leaves no near tie.
    """

    build: Callable[[], nn.Module]
    prefix: int
    seed: int = 0


def of_timm(name: str, **options: Any) -> nn.Module:
    """Build a timm model of few channels by name."""
    model: nn.Module = timm.create_model(name, **(TINY | options))
    return model


def of_hugging_face(name: str, **changes: Any) -> nn.Module:
    """Build a model of transformers from its own configuration class."""
    return of_transformers(name, num_hidden_layers=len(REMOVED), intermediate_size=64, **changes)


TOWERS = {
    "DINOv3": Tower(build=partial(of_timm, "vit_small_patch16_dinov3"), prefix=5),
    "EVA-02": Tower(build=partial(of_timm, "eva02_tiny_patch14_224"), prefix=1),
    "RoPE of each head": Tower(build=partial(of_timm, "vit_small_patch16_rope_mixed_224"), prefix=1),
    "BEiT": Tower(build=partial(of_timm, "beit_base_patch16_224"), prefix=1),
    "bias padded for the class token": Tower(
        build=partial(of_timm, "vit_relpos_base_patch16_cls_224"), prefix=1
    ),
    "DINOv3 of transformers": Tower(
        build=partial(of_hugging_face, "DINOv3ViTModel", num_register_tokens=4), prefix=5
    ),
    "BEiT of transformers": Tower(
        build=partial(of_hugging_face, "BeitModel", use_relative_position_bias=True, use_mean_pooling=False),
        prefix=1,
    ),
}


def model_of(name: str) -> nn.Module:
    """Build a tower with weights that leave no part idle."""
    tower = TOWERS[name]
    model = tower.build()
    randomise(model, tower.seed)
    if type(model).__module__.startswith("transformers."):
        model = OneTensorOut(model)
    return model.eval().requires_grad_(False)


def images_of(name: str) -> Tensor:
    """Random images for it."""
    return torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(TOWERS[name].seed))


@cache
def captured(name: str) -> Captured:
    """Capture a tower, once."""
    return capture_model(model_of(name))


@cache
def definition(name: str, method: str = "tome") -> Tensor:
    """What the tower gives when tokens merge, by its own modules in fp64."""
    model, images = model_of(name).double(), images_of(name).double()
    output, margin = merged_at_own_positions(model, images, REMOVED, TOWERS[name].prefix, method)
    assert margin > MIN_MARGIN
    return output


@pytest.mark.parametrize("name", ["DINOv3", "EVA-02", "BEiT"])
def test_without_a_merge_the_numbers_are_the_models(name: str) -> None:
    expected = model_of(name)(images_of(name))

    program = captured(name).compile(ScheduleRequest(r=0))
    dense, *_ = program(images_of(name))

    assert "fold_tables" not in {outcome.name for outcome in program.passes}
    assert max_abs_error(dense, expected) < 1e-6 * float(expected.abs().max())


@pytest.mark.parametrize("name", TOWERS)
def test_merged_tokens_stay_at_their_own_position(name: str) -> None:
    program = captured(name).compile(ScheduleRequest(r_per_layer=REMOVED))

    output, *_ = program(images_of(name))

    assert max_abs_error(output, definition(name)) < 1e-5


KERNELS = Forms(merge="kernels", metric="columns", stem="product")
OTHER_FORMS = [
    pytest.param("EVA-02", KERNELS, id="rotary table, kernels"),
    pytest.param("BEiT", KERNELS, id="bias, kernels"),
    pytest.param("BEiT", Forms(mask="folded"), id="bias, folded sizes"),
]


@pytest.mark.parametrize(("name", "forms"), OTHER_FORMS)
def test_every_form_reads_the_tables(name: str, forms: Forms) -> None:
    program = captured(name).compile(ScheduleRequest(r_per_layer=REMOVED), forms=forms)

    output, *_ = program(images_of(name))

    assert max_abs_error(output, definition(name)) < 1e-5


def test_class_row_has_the_bias_of_positions() -> None:
    program = captured("BEiT").compile(ScheduleRequest(r_per_layer=REMOVED), "evit", proportional=False)

    output, *_ = program(images_of("BEiT"))

    assert max_abs_error(output, definition("BEiT", "evit")) < 1e-5


@pytest.mark.parametrize(("name", "engine"), [("DINOv3", "openvino"), ("BEiT", "onnx")])
def test_engines_read_the_tables(name: str, engine: str, tmp_path: Path) -> None:
    chosen = target(engine)
    options = chosen.options()
    forms = chosen.default_forms(options)
    program = captured(name).compile(ScheduleRequest(r_per_layer=REMOVED), forms=forms)

    runner = chosen.emit(program, request_of(options, forms=forms), tmp_path).runner
    output = torch.from_numpy(runner(images_of(name).numpy())["logits"])

    assert max_abs_error(output, definition(name)) < 1e-4


def test_tables_are_read_in_batches_of_any_size() -> None:
    program = captured("DINOv3").compile(ScheduleRequest(r_per_layer=REMOVED), dynamic_batch=True)

    output, *_ = program(images_of("DINOv3")[:1])

    assert max_abs_error(output, definition("DINOv3")[:1]) < 1e-5
