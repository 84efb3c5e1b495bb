"""What a plan says of a method that learned parts with the model."""

from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import nn

from exporter.errors import WeightsError
from exporter.models import ModelRequest, load
from exporter.pipeline import gmacs, plan_export
from exporter.recipe import Recipe
from exporter.schedule import ScheduleRequest
from tests.support.definitions.dynamicvit import Predictor

WIDTH = 80
KEEP = ScheduleRequest(keep_rate=0.7)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`vit_digits` and three predictors in one file, as the authors' checkpoints have them."""
    path = tmp_path_factory.mktemp("weights") / "dynamicvit.safetensors"
    predictors = nn.ModuleList(Predictor(WIDTH) for _ in range(3)).state_dict(prefix="score_predictor.")
    save_file(load(ModelRequest(model="vit_digits")).module.state_dict() | predictors, path)
    return path


def recipe(method: str, weights: Path) -> Recipe:
    return Recipe(model=ModelRequest(model="vit_digits", weights=str(weights)), method=method, schedule=KEEP)


def test_reduced_multiply_accumulates_count_the_predictors(published: Path) -> None:
    """64 patches to 44, 31 and 21: int(64 * 0.7), int(64 * 0.49) and int(64 * 0.343), in blocks 2, 4 and 6 of 8."""
    planned = plan_export(recipe("dynamicvit", published))
    found, dense = gmacs(planned, 0), gmacs(planned.dense, 0)

    tokens = (65, 65, 45, 45, 32, 32, 22, 22)
    embedding_and_head = 64 * 48 * WIDTH + WIDTH * 10
    blocks = [12 * count * WIDTH**2 + 2 * count**2 * WIDTH for count in tokens]
    for block, patches in {2: 64, 4: 44, 6: 31}.items():
        blocks[block] += patches * (WIDTH**2 + WIDTH * 40 + 40 * 20 + 20 * 2)
    assert round(found.reduced * 1e9) == embedding_and_head + sum(blocks)
    assert [round(each * 1e9) for each in found.blocks or ()] == blocks
    assert dense.reduced == dense.dense == found.dense


def test_what_another_method_learned_is_refused_by_the_name_of_that_method(published: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"30 unexpected: score_predictor.*method dynamicvit learned.*method evit"
    ):
        plan_export(recipe("evit", published))
