"""What is built once for this room: `clip_digits` with both towers, and what its own modules make of its own data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import exporter
from exporter.models import (
    ExampleInput,
    LoadedModel,
    ModelRequest,
    Preprocess,
    ShippedData,
    crop_image,
    load,
    normalize,
    shipped_data,
)
from exporter.recipe import recipe_from_mapping
from exporter.targets import Array
from tests.support.once import once

CLASSIFIER = LoadedModel(
    module=torch.nn.Identity(),
    source="hf",
    id="some-model",
    alias=None,
    name="some-model",
    inputs={"images": ExampleInput(shape=(3, 8, 8), dtype=torch.float32)},
    output_names=("logits",),
    preprocess=Preprocess(
        image_size=(8, 8), interpolation="bicubic", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.5,) * 3
    ),
    weights_kind="random",
    weights_tag=None,
    weights_sha256="0" * 64,
)
"""A model as far as it decides what it is measured on."""


@dataclass(frozen=True, kw_only=True)
class ClipDigits:
    """A bundle of both towers, and the model's own eager towers.

    `dense_BC` and `onnx_BC` are embeddings of the held-out scans: of the eager image tower, and of the bundle's
    `model.onnx` as ONNX Runtime alone runs it.
    """

    bundle: exporter.Bundle
    shipped: ShippedData
    text: LoadedModel
    dense_BC: Array
    onnx_BC: Array

    def embed_eagerly(self, texts: Sequence[str]) -> Array:
        """By the eager text tower."""
        module: Any = self.text.module
        with torch.no_grad():
            embeddings: Array = module(torch.from_numpy(self.ids(texts))).numpy()
        return embeddings

    def embed_by_engine(self, texts: Sequence[str]) -> Array:
        """By the bundle's text engine, one text at a time."""
        return run_onnx(str(self.bundle.path / "text" / "model.onnx"), self.ids(texts))

    def ids(self, texts: Sequence[str]) -> Array:
        """Token ids."""
        assert self.text.tokenize is not None
        return self.text.tokenize(list(texts))


def run_onnx(path: str, inputs: Array) -> Array:
    """The first output of a model of batch 1, for every row."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: row[None]})[0] for row in inputs])


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipDigits:
    values = {"schema_version": 1, "model": "clip_digits", "tower": "both", "schedule": {"r": 4}}

    def export(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("exporter.pipeline.measure.default_workers", lambda images: 0)
            exporter.export(recipe_from_mapping(values, "test"), folder / "bundle")

    bundle = exporter.load_bundle(once(tmp_path_factory, "clip", export) / "bundle")
    request = ModelRequest(model="clip_digits")
    image, shipped = load(request), shipped_data(request)
    assert shipped is not None
    preprocess = image.preprocess
    assert preprocess is not None
    images_BCHW = np.stack(
        [normalize(crop_image(Image.fromarray(each), preprocess), preprocess) for each in shipped.images_BHWC]
    )
    module: Any = image.module
    with torch.no_grad():
        dense_BC = module(torch.from_numpy(images_BCHW)).numpy()
    return ClipDigits(
        bundle=bundle,
        shipped=shipped,
        text=load(ModelRequest(model="clip_digits", tower="text")),
        dense_BC=dense_BC,
        onnx_BC=run_onnx(str(bundle.path / "model.onnx"), images_BCHW),
    )
