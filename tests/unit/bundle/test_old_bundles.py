"""Bundles that earlier versions wrote still open and run.

`old/schema-N` is a bundle as the exporter wrote it when N was its newest schema version; it is never built again. When
SCHEMA_VERSION goes up, the bundle of the version before stays, and one of the new version is added.
"""

from pathlib import Path

import numpy as np
import pytest

from exporter.bundle import Bundle, load_bundle
from exporter.bundle.manifest import SCHEMA_VERSION

OLD = Path(__file__).parent / "old"
VERSIONS = range(1, SCHEMA_VERSION + 1)


@pytest.fixture(params=VERSIONS, ids=lambda version: f"schema-{version}")
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return load_bundle(OLD / f"schema-{request.param}")


def test_there_is_one_of_every_schema_version() -> None:
    assert {folder.name for folder in OLD.iterdir()} == {f"schema-{version}" for version in VERSIONS}


def test_engine_gives_what_it_gave_then(bundle: Bundle) -> None:
    sample = bundle.sample()
    images = sample.pop(bundle.manifest.inputs[0].name)

    outputs = bundle.runner("onnx")(images)

    assert outputs.keys() == sample.keys()
    for name, expected in sample.items():
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5)


def test_recipe_and_preprocessing_are_read(bundle: Bundle) -> None:
    preprocess = bundle.preprocess()

    assert preprocess is not None
    assert (1, 3, *preprocess.image_size) == bundle.manifest.inputs[0].shape
    assert bundle.recipe().schedule.r == 4
