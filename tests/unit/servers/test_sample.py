"""The images that a bundle's sample is sent as."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporter.bundle import Bundle
from exporter.errors import BundleError
from exporter.models import Preprocess, crop_image, preprocess_image
from exporter.servers.sample import sample_files
from exporter.signature import Array

PLAIN = Preprocess(
    image_size=(32, 32),
    interpolation="bicubic",
    crop_fraction=1.0,
    mean=(0.48, 0.46, 0.41),
    std=(0.27, 0.26, 0.28),
)
GRAY: dict[str, Any] = {"channel_order": "gray", "mean": (0.5,), "std": (0.25,), "fill": (0,)}
RGBA: dict[str, Any] = {"channel_order": "rgba", "mean": (0.5,) * 4, "std": (0.2,) * 4, "fill": (0,) * 4}


def with_sample(
    bundle: Bundle, preprocess: Preprocess, inputs: Array, monkeypatch: pytest.MonkeyPatch
) -> Bundle:
    monkeypatch.setattr(Bundle, "sample", lambda self, target: {"images": inputs})
    form = {"input": "uint8" if inputs.dtype == np.uint8 else "float"}
    layout = {"layout": "nhwc" if inputs.shape[-1] <= 4 else "nchw"}
    manifest = replace(bundle.manifest, preprocess=preprocess.to_dict(), **form, **layout)  # type: ignore[arg-type]
    return replace(bundle, manifest=manifest)


def opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({}, id="whole"),
        pytest.param({"crop_fraction": 0.875}, id="centre"),
        pytest.param({"crop_fraction": 0.9, "image_size": (31, 45)}, id="not square"),
        pytest.param({"crop_fraction": 1.3, "fill": (9, 200, 30)}, id="filled"),
        pytest.param({"resize_mode": "squash", "crop_fraction": 0.95}, id="squashed"),
        pytest.param({"to_rgb": "over_white"}, id="over white"),
        pytest.param(GRAY, id="grey"),
        pytest.param(RGBA, id="transparency"),
    ],
)
def test_preprocessing_makes_the_sample_of_the_file(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    preprocess = replace(PLAIN, **changed)
    pixels = np.random.default_rng(1).integers(0, 256, (60, 50, 4), dtype=np.uint8)
    sample = np.stack(
        [preprocess_image(Image.fromarray(each), preprocess) for each in (pixels, pixels[::-1])]
    )

    files = sample_files(with_sample(bundle, preprocess, sample, monkeypatch), "onnx")

    found = np.stack([preprocess_image(opened(file), preprocess) for file in files.ravel()])
    assert np.array_equal(found, sample)


def test_sample_of_bytes_in_the_other_layout_is_one_of_files_too(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    sample_BHWC = crop_image(Image.fromarray(pixels), PLAIN)[None].transpose(0, 2, 3, 1)

    files = sample_files(with_sample(bundle, PLAIN, sample_BHWC, monkeypatch), "onnx")

    assert np.array_equal(crop_image(opened(files[0, 0]), PLAIN)[None].transpose(0, 2, 3, 1), sample_BHWC)


def test_sample_that_is_of_no_image_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(3).normal(scale=9, size=(1, 3, 32, 32)).astype(np.float32)

    with pytest.raises(BundleError, match="is not what its preprocessing makes of an image"):
        sample_files(with_sample(bundle, PLAIN, noise, monkeypatch), "onnx")
