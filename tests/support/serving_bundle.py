"""A bundle of a tiny model with two engines, built once in a test run."""

from pathlib import Path

import pytest

import exporter
from exporter.bundle import Bundle, load_bundle
from exporter.models import ModelRequest
from exporter.recipe import Recipe
from exporter.schedule import ScheduleRequest
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.openvino.options import OpenVinoOptions
from tests.support.once import once


def serving_bundle(temporary: pytest.TempPathFactory) -> Bundle:
    """Return a ViT's bundle of 32 pixels and 2 blocks, for ONNX Runtime and OpenVINO; shared, so not to be changed."""

    def build(folder: Path) -> None:
        recipe = Recipe(
            model=ModelRequest(model="timm:test_vit", weights="random", image_size=32, options={"depth": 2}),
            schedule=ScheduleRequest(r=4),
            targets=("onnx", "openvino"),
            engines={
                "openvino": OpenVinoOptions(threads=1),
                "onnx": OnnxOptions(engine_cache="/cache/of/mine"),
            },
        )
        exporter.export(recipe, folder / "bundle")

    return load_bundle(once(temporary, "serving-bundle", build) / "bundle")
