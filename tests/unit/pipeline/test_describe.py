"""What the report of a user's image is drawn from: the matches of the eager program."""

import numpy as np
import pytest
from PIL import Image

import exporter
from exporter.models import ModelRequest
from exporter.pipeline.describe import _groups
from exporter.pipeline.observe import silent
from exporter.recipe import Recipe
from exporter.schedule import ScheduleRequest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> exporter.Bundle:
    model = ModelRequest(model="timm:test_vit", weights="random", image_size=64)
    recipe = Recipe(model=model, schedule=ScheduleRequest(r=2))
    return exporter.export(recipe, tmp_path_factory.mktemp("bundles") / "bundle")


def photo(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_every_block_leaves_as_many_regions_as_tokens(bundle: exporter.Bundle) -> None:
    """But the last one: nobody reads what it would merge, so that its merge is not executed."""
    groups_LBT = _groups(bundle, photo(1), None, silent)
    tokens = bundle.manifest.schedule.tokens

    assert groups_LBT.shape == (len(tokens) - 1, 1, tokens[0])
    assert [len(np.unique(block)) for block in groups_LBT] == [*tokens[1:-1], tokens[-2]]


def test_other_image_merges_elsewhere(bundle: exporter.Bundle) -> None:
    one, other = (_groups(bundle, photo(seed), None, silent) for seed in (1, 2))

    assert not np.array_equal(one, other)
