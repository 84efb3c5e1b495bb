"""The names of bundles and of reduced forms, when the recipe gives none."""

from dataclasses import replace
from typing import Any

import pytest

from exporter.models import ModelRequest
from exporter.recipe import Recipe, default_name
from exporter.schedule import ScheduleRequest


def vit(**schedule: Any) -> Recipe:
    return Recipe(model=ModelRequest(model="vit_b16"), schedule=ScheduleRequest(**schedule))


def reduced(method: str, **options: Any) -> Recipe:
    return replace(vit(r=4), method=method, method_options=options)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        pytest.param(vit(r=8), "m-tome-r8", id="constant"),
        pytest.param(vit(r=0), "m-dense", id="dense"),
        pytest.param(vit(r_per_layer=(0, 0)), "m-dense", id="dense-list"),
        pytest.param(vit(r=8, kind="decreasing", align=8), "m-tome-r8-decreasing-align8", id="decreasing"),
        pytest.param(replace(vit(r=8), method="pitome", precision="fp16"), "m-pitome-r8-fp16", id="fp16"),
        pytest.param(replace(vit(r=8), batch=4, input="uint8"), "m-tome-r8-uint8-batch4", id="batch"),
        pytest.param(replace(vit(), dynamic_batch=True), "m-dense-dynamic", id="dynamic"),
        pytest.param(replace(vit(), model=ModelRequest(model="x", image_size=64)), "m-64-dense", id="size"),
        pytest.param(
            replace(vit(), model=ModelRequest(model="x", image_size=(96, 160))),
            "m-96x160-dense",
            id="two sides",
        ),
        pytest.param(
            replace(vit(), model=ModelRequest(model="x", tower="text")),
            "m-dense",
            id="text-tower, which the model's own name says",
        ),
        pytest.param(reduced("evit", fused=False), "m-evit-r4-fused-false", id="switched off"),
        pytest.param(reduced("evit", fused=True), "m-evit-r4", id="option at its default"),
        pytest.param(
            reduced("pitome", metric="tokens", margin=0.75),
            "m-pitome-r4-margin0.75-metric-tokens",
            id="two options, in the order of their names",
        ),
        pytest.param(reduced("random", seed=3), "m-random-r4-seed3", id="integer"),
        pytest.param(
            replace(reduced("evit", fused=False), precision="fp16"), "m-evit-r4-fused-false-fp16", id="all"
        ),
        pytest.param(
            replace(reduced("evit", fused=False), schedule=ScheduleRequest()), "m-dense", id="no reader"
        ),
    ],
)
def test_the_default_name_says_what_differs_from_the_defaults(recipe: Recipe, name: str) -> None:
    assert default_name(recipe, "m") == name


def test_different_lists_have_different_default_names() -> None:
    assert default_name(vit(r_per_layer=(1, 2)), "m") != default_name(vit(r_per_layer=(2, 1)), "m")
