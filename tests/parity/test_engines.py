"""Engines of one bundle on the held-out scans, against the independent eager reference of the merged model."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import exporter
from exporter.models import ModelRequest, crop_image, load, normalize, shipped_data
from exporter.recipe import Recipe
from exporter.schedule import ScheduleRequest
from exporter.targets import Array
from tests.support.eager_merge import trace_eager_merged

ENGINES = ("onnx", "openvino")
MERGED = (8, 0, 0, 0, 8, 0, 0, 0)


@pytest.fixture(scope="module", autouse=True)
def _engines_alone() -> Iterator[None]:
    """Exports measure nothing, since the tests do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("exporter.pipeline.export"), "material", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def scans() -> tuple[Array, Array]:
    """Held-out scans as the model takes them, and their digits."""
    from PIL import Image

    shipped = shipped_data(ModelRequest(model="vit_digits"))
    preprocess = load(ModelRequest(model="vit_digits")).preprocess
    assert shipped is not None and preprocess is not None
    pictures = [Image.fromarray(each) for each in shipped.images_BHWC]
    images_BCHW = np.stack([normalize(crop_image(each, preprocess), preprocess) for each in pictures])
    return images_BCHW, shipped.labels


@pytest.fixture(scope="module")
def reduced_top1(scans: tuple[Array, Array]) -> float:
    """Percent that the model gets right when its own modules merge, without any of the compiler's code."""
    images_BCHW, labels = scans
    module: Any = load(ModelRequest(model="vit_digits")).module
    module.eval()
    answers = [
        trace_eager_merged(module, part, MERGED, "tome").output.argmax(dim=1)
        for part in torch.from_numpy(images_BCHW).split(64)
    ]
    return top1(torch.cat(answers).numpy(), labels)


def top1(answers: Array, labels: Array) -> float:
    return 100 * float(np.mean(answers == labels))


def recipe(*targets: str, **values: Any) -> Recipe:
    return Recipe(
        model=ModelRequest(model="vit_digits"),
        schedule=ScheduleRequest(r_per_layer=MERGED),
        batch=16,
        targets=targets,
        **values,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> exporter.Bundle:
    return exporter.export(recipe(*ENGINES), tmp_path_factory.mktemp("engines") / "bundle")


@pytest.mark.parametrize("target", ENGINES)
def test_engine_is_as_right_as_the_merged_model_in_eager_pytorch(
    target: str, bundle: exporter.Bundle, scans: tuple[Array, Array], reduced_top1: float
) -> None:
    images_BCHW, labels = scans

    logits = bundle.runner(target)(images_BCHW)["logits"]

    assert abs(top1(logits.argmax(axis=1), labels) - reduced_top1) <= 0.3
    assert bundle.manifest.parity[target].passed
    assert bundle.manifest.parity[target].max_abs_error < 1e-4


def test_eight_bits_lose_less_than_a_point(
    scans: tuple[Array, Array], reduced_top1: float, tmp_path: Path
) -> None:
    images_BCHW, labels = scans

    narrow = exporter.export(recipe("openvino", precision="int8"), tmp_path / "bundle")

    logits = narrow.runner("openvino")(images_BCHW)["logits"]
    assert abs(top1(logits.argmax(axis=1), labels) - reduced_top1) < 1.0
