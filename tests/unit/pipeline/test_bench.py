"""How the bundles of one race are told apart."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exporter.models import ModelRequest
from exporter.pipeline.bench import _labels
from exporter.recipe import Recipe
from exporter.schedule import ScheduleRequest


@dataclass(frozen=True)
class Placed:
    """A bundle, as far as its place matters."""

    path: Path


def recipe(r: int, **changes: Any) -> Recipe:
    return Recipe(model=ModelRequest(model="vit_digits"), schedule=ScheduleRequest(r=r), **changes)


@pytest.mark.parametrize(
    ("paths", "recipes", "labels"),
    [
        pytest.param(
            ["a", "b", "c"],
            [recipe(0), recipe(4), recipe(4, method="pitome")],
            ["dense", "tome-r4", "pitome-r4"],
            id="what they merge",
        ),
        pytest.param(
            ["x/a", "x/b"],
            [recipe(4), recipe(4, disable_passes=("fold_layer_scale",))],
            ["a", "b"],
            id="folders",
        ),
        pytest.param(["x/a", "y/a"], [recipe(4), recipe(4)], ["x/a", "y/a"], id="paths"),
    ],
)
def test_labels_differ(paths: list[str], recipes: list[Recipe], labels: list[str]) -> None:
    bundles: list[Any] = [Placed(Path(path)) for path in paths]

    assert _labels(bundles, recipes) == labels
