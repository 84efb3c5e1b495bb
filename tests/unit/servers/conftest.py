"""A bundle whose engines take eight images at a time, and what it is packed into."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import exporter
from exporter.bundle import Bundle, load_bundle
from exporter.models import ModelRequest
from exporter.recipe import Recipe
from exporter.schedule import ScheduleRequest
from exporter.servers import Packed, PackRequest, pack
from tests.support.once import once

BATCH = 8

PackIt = Callable[..., Packed]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A ViT of 32 pixels and 2 blocks, for ONNX Runtime and OpenVINO; shared, so not to be changed."""

    def build(folder: Path) -> None:
        recipe = Recipe(
            model=ModelRequest(model="timm:test_vit", weights="random", image_size=32, options={"depth": 2}),
            schedule=ScheduleRequest(r=4),
            targets=("onnx", "openvino"),
            batch=BATCH,
        )
        exporter.export(recipe, folder / "bundle")

    return load_bundle(once(tmp_path_factory, "servers-bundle", build) / "bundle")


@pytest.fixture
def packed(bundle: Bundle, tmp_path: Path) -> PackIt:
    """Pack the bundle into a repository, with options over the defaults."""

    def pack_it(**options: Any) -> Packed:
        given = {"bundle": bundle.path, "out": tmp_path / "models", "name": "vit", **options}
        return pack(PackRequest(**given))

    return pack_it
