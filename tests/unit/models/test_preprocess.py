"""What a `Preprocess` says, how it is kept, and where it is read from.

That it equals the libraries' transforms is in `test_preprocess_equality.py`.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from exporter.errors import BundleError, ModelUnavailableError
from exporter.models import (
    LoadedModel,
    ModelRequest,
    Preprocess,
    crop_image,
    load,
    normalize,
    preprocess_image,
)
from exporter.models.preprocessing.preprocess import channel_order
from exporter.models.preprocessing.resize import exact_fraction
from tests.support.odd_images import encoded, opened

HALF = (0.5, 0.5, 0.5)
BYTES = (123.675, 116.28, 103.53)


def photo(width: int, height: int) -> Image.Image:
    """Noise over a gradient, so that a shift by one pixel is seen."""
    ramp = np.linspace(0, 155, width)[None, :, None] + np.zeros((height, 1, 3))
    noise = np.random.default_rng(0).integers(0, 100, (height, width, 3))
    return Image.fromarray((ramp + noise).astype(np.uint8))


def plain(**changes: object) -> Preprocess:
    """A 32 pixel bicubic centre crop, with changes."""
    values = {
        "image_size": (32, 32),
        "interpolation": "bicubic",
        "crop_fraction": 0.875,
        "mean": HALF,
        "std": HALF,
    }
    return Preprocess(**(values | changes))  # type: ignore[arg-type]


def test_squash_resizes_both_sides() -> None:
    squashed = crop_image(photo(300, 200), plain(resize_mode="squash", crop_fraction=1.0))
    expected = np.asarray(photo(300, 200).resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(squashed, expected)


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    image = photo(32, 32)
    cropped = crop_image(image, plain(crop_fraction=1.0))
    np.testing.assert_array_equal(cropped, np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (500, 3)], ids=str)
def test_any_image_gives_the_models_size(mode: str, size: tuple[int, int]) -> None:
    image = photo(*size).convert(mode)
    pixels = preprocess_image(image, plain(image_size=(32, 48)))
    assert pixels.shape == (3, 32, 48)
    assert pixels.dtype == np.float32
    assert crop_image(image, plain(image_size=(32, 48))).dtype == np.uint8


def test_rgb_goes_first_over_white_or_last() -> None:
    """Two pixels, red and transparent blue, resized to one whose halves are: both; red over white; by weight."""
    pixels = np.array([[(255, 0, 0, 255), (0, 0, 255, 0)]], np.uint8)
    image = Image.fromarray(np.repeat(pixels, 2, axis=0))
    one = {"image_size": (1, 1), "crop_fraction": 1.0, "resize_mode": "squash", "interpolation": "bilinear"}
    found = {
        way: crop_image(image, plain(**one, to_rgb=way)).ravel().tolist()
        for way in ("first", "over_white", "last")
    }
    assert found["first"] in ([128, 0, 128], [127, 0, 127], [127, 0, 128], [128, 0, 127])
    assert found["over_white"] in ([255, 128, 128], [255, 127, 127])
    assert found["last"] == [255, 0, 0]


def test_what_is_missing_is_filled_with_the_odd_pixel_right_and_below() -> None:
    image = Image.new("RGB", (9, 6), (10, 20, 30))
    found = crop_image(image, plain(image_size=(9, 9), crop_fraction=1.0, resize_mode="pad", fill=(1, 2, 3)))
    expected = np.broadcast_to(np.array([1, 2, 3], np.uint8)[:, None, None], (3, 9, 9)).copy()
    expected[:, 1:7] = np.array([10, 20, 30], np.uint8)[:, None, None]
    np.testing.assert_array_equal(found, expected)


def test_half_a_pixel_off_centre_the_kernels_start_where_their_libraries_do() -> None:
    """Seven rows of nine, and five, are left out: 3.5 rounds to the even 4 and down to 3; 2.5 to 2 and 2."""
    rows = np.broadcast_to(np.arange(9, dtype=np.uint8)[:, None, None], (9, 9, 3))
    starts = {
        (size, kernel): crop_image(
            Image.fromarray(rows), plain(image_size=(size, size), crop_fraction=size / 9, kernel=kernel)
        )[0, 0, 0].item()
        for size in (2, 4)
        for kernel in ("pil", "torch")
    }
    assert starts == {(2, "pil"): 4, (2, "torch"): 3, (4, "pil"): 2, (4, "torch"): 2}


def test_an_orientation_in_exif_is_left_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = photo(40, 30)
    turned = opened(encoded(upright, "PNG", exif=exif))
    assert turned.getexif()[0x0112] == 6
    np.testing.assert_array_equal(crop_image(turned, plain()), crop_image(upright, plain()))


def test_normalising_takes_any_leading_axes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 5, 6), dtype=np.uint8)
    preprocess = plain(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    found = normalize(pixels, preprocess)
    exact = (pixels / 255 - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array([0.5, 1, 2])[:, None, None]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=0, atol=3e-7)
    np.testing.assert_array_equal(found[1, 2], normalize(pixels[1, 2], preprocess))
    assert pixels.max() > 1  # left as they were


@given(side=st.integers(1, 2000), resized=st.integers(1, 2000))
def test_a_fraction_gives_the_resized_side_back(side: int, resized: int) -> None:
    fraction = exact_fraction(side, resized)
    assert math.floor(side / fraction) == resized
    assert fraction == pytest.approx(side / resized, rel=1e-15)


def test_a_strip_is_not_resized_to_more_than_pillow_opens() -> None:
    with pytest.raises(Image.DecompressionBombError, match="50000x1 pixels would be resized to 10000000x200"):
        crop_image(Image.new("L", (50_000, 1)), plain(image_size=(200, 200), crop_fraction=1.0))


def test_a_dictionary_round_trip_through_json_changes_nothing() -> None:
    preprocess = plain(resize_mode="squash", kernel="torch", to_rgb="over_white", fill=(1, 2, 3))
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


GRAY: dict[str, Any] = {"channel_order": "gray", "mean": (0.4,), "std": (0.3,), "fill": (7,)}
RGBA: dict[str, Any] = {
    "channel_order": "rgba", "mean": (0.5, 0.4, 0.3, 0.2), "std": (1.0,) * 4, "fill": (0,) * 4
}  # fmt: skip


@pytest.mark.parametrize(
    ("look", "channels"), [pytest.param(GRAY, 1, id="gray"), pytest.param(RGBA, 4, id="rgba")]
)
def test_other_channels_go_through_json_and_through_pixels(look: dict[str, Any], channels: int) -> None:
    preprocess = plain(**look, image_size=(16, 24))
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    assert preprocess.input_shape == (channels, 16, 24)
    assert channel_order(channels) == look["channel_order"]
    assert crop_image(photo(30, 30), preprocess).shape == (channels, 16, 24)
    assert preprocess_image(photo(30, 30), preprocess).dtype == np.float32


@pytest.mark.parametrize("channels", [0, 2, 5, 13])
def test_no_photo_has_other_numbers_of_channels(channels: int) -> None:
    assert channel_order(channels) is None


def test_gray_over_white_is_white_where_nothing_is_seen() -> None:
    transparent = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    one = {"image_size": (8, 8), "crop_fraction": 1.0}
    assert np.unique(crop_image(transparent, plain(**GRAY, **one, to_rgb="over_white"))).tolist() == [255]
    assert np.unique(crop_image(transparent, plain(**GRAY, **one))).tolist() == [
        18
    ]  # ITU-R 601 of the colour


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"mean": (0.5,)}, "mean: expected 3 numbers for channel_order rgb, got 1", id="mean"),
        pytest.param({"std": (0.5,) * 4}, "std: expected 3 .*gray has 1, rgb has 3, rgba has 4", id="std"),
        pytest.param(GRAY | {"fill": (0, 0, 0)}, "fill: expected 1 .*gray, got 3", id="fill"),
        pytest.param(RGBA | {"to_rgb": "over_white"}, "leaves no transparency", id="rgba over white"),
        pytest.param({"image_size": (32, 0)}, "whole numbers from 1 to 4096, got 0", id="no pixel"),
        pytest.param({"image_size": (2, 32), "crop_fraction": 2.5}, "at least crop_fraction", id="shrunk"),
        pytest.param({"interpolation": "hamming"}, "interpolation: expected one of .*hamming", id="filter"),
        pytest.param({"resize_mode": "stretch"}, "resize_mode: expected one of", id="resize mode"),
        pytest.param({"to_rgb": "last", "kernel": "torch"}, "to_rgb: last goes with", id="last by torch"),
        pytest.param({"crop_fraction": math.nan}, "crop_fraction: expected numbers from", id="no fraction"),
        pytest.param({"std": (0, 1, 1)}, "std: expected numbers from 1e-06 .*got 0", id="no deviation"),
        pytest.param({"mean": (math.inf,) * 3}, "mean: expected numbers from .*got inf", id="infinite mean"),
        pytest.param({"mean": tuple("abc")}, "mean: expected numbers from .*got a", id="letters"),
        pytest.param(
            {"mean": BYTES}, r"mean: 123.675 looks like 0..255: .*divide by 255", id="mean of bytes"
        ),
        pytest.param({"std": (58.395,) * 3}, r"std: 58.395 looks like 0..255", id="deviation of bytes"),
    ],
)
def test_a_contradiction_is_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        plain(**change)


def test_a_dictionary_of_version_0_1_means_what_it_meant() -> None:
    old = {key: value for key, value in plain().to_dict().items() if key not in ("to_rgb", "kernel", "fill")}
    assert len(old) == 8
    assert Preprocess.from_dict(old) == plain()
    with pytest.raises(BundleError, match="missing keys: mean; export the bundle again"):
        Preprocess.from_dict({key: value for key, value in old.items() if key != "mean"})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"extra": 1}, id="unknown key"),
        pytest.param({"interpolation": "magic"}, id="unknown filter"),
        pytest.param({"to_rgb": "last", "resize_mode": "pad"}, id="a fill that the mode may not have"),
        pytest.param({"std": None}, id="no list"),
    ],
)
def test_a_damaged_dictionary_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match=r"preprocess\.json"):
        Preprocess.from_dict(plain().to_dict() | change)


def load_with_processor(folder: Path, processor: dict[str, object], **asked: Any) -> LoadedModel:
    """Load a tiny ViT with random weights from a folder that has this processor."""
    config = {"model_type": "vit", "architectures": ["ViTModel"], "hidden_size": 32, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 32, "image_size": 32, "patch_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return load(ModelRequest(model=f"hf:{folder}", weights="random", **asked))


CROPPING: dict[str, object] = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [1, 1, 1],
}


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        pytest.param(
            CROPPING,
            plain(image_size=(224, 224), mean=(0.1, 0.2, 0.3), std=(1, 1, 1), to_rgb="over_white"),
            id="centre crop; what the file leaves out is the class's",
        ),
        pytest.param(
            {
                "feature_extractor_type": "CLIPFeatureExtractor",
                "size": 64,
                "crop_size": 48,
                "do_convert_rgb": False,
            }
            | {"image_mean": HALF, "image_std": HALF},
            plain(image_size=(48, 48), crop_fraction=0.75),
            id="an old file: plain numbers",
        ),
        pytest.param(
            {"size": {"height": 64, "width": 64}},
            plain(image_size=(64, 64), interpolation="bilinear", crop_fraction=1.0, resize_mode="squash"),
            id="squash; without a name it is the model's class",
        ),
        pytest.param(
            {
                "image_processor_type": "BeitImageProcessor",
                "size": 64,
                "crop_size": 48,
                "do_center_crop": True,
            },
            plain(image_size=(48, 48), crop_fraction=0.75, resize_mode="squash"),
            id="squash, then crop",
        ),
        pytest.param(
            {"size": 32, "crop_size": 16, "do_normalize": False, "resample": 1},
            plain(
                crop_fraction=1.0,
                mean=(0.0,) * 3,
                std=(1.0,) * 3,
                resize_mode="squash",
                interpolation="lanczos",
            ),
            id="not cropped, not normalised",
        ),
    ],
)
def test_an_hf_processor_says_how_photos_are_seen(
    processor: dict[str, object], expected: Preprocess, tmp_path: Path
) -> None:
    loaded = load_with_processor(tmp_path, processor)
    assert loaded.preprocess == Preprocess(**(vars(expected) | {"kernel": "torch"}))
    assert loaded.example_input.shape == (3, *expected.image_size)


def test_another_size_scales_what_an_hf_processor_resizes_to(tmp_path: Path) -> None:
    preprocess = load_with_processor(tmp_path, CROPPING, image_size=56).preprocess
    assert preprocess is not None
    assert preprocess.image_size == (56, 56)
    assert math.floor(56 / preprocess.crop_fraction) == 64


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        pytest.param(
            {"image_processor_type": "ConvNextImageProcessor"}, "is a ConvNext.*does more than", id="class"
        ),
        pytest.param({"do_resize": False}, "does not resize", id="no resize"),
        pytest.param({"do_rescale": False}, "does not rescale", id="no rescale"),
        pytest.param({"rescale_factor": 1 / 127.5}, "does not rescale", id="another rescale"),
        pytest.param({"resample": 5}, "resamples by .*expected one of nearest", id="Hamming"),
        pytest.param(
            CROPPING | {"crop_size": {"height": 32, "width": 48}},
            "crops 32x48 of a resized shortest edge",
            id="crop not square",
        ),
        pytest.param(
            {"image_processor_type": "DeiTImageProcessor", "size": {"height": 64, "width": 64}}
            | {"crop_size": {"height": 32, "width": 48}},
            "same proportion",
            id="squash and crop of other proportions",
        ),
        pytest.param({"size": {"height": 0, "width": 32}}, "expected sides between 1 and", id="no pixels"),
        pytest.param({"size": {"height": 1 << 31, "width": 32}}, "expected sides between 1 and", id="huge"),
        pytest.param({"image_mean": [0.5, float("nan"), 0.5]}, "image_mean: expected finite", id="no number"),
        pytest.param({"image_std": [0.5, {"a": 1}, 0.5]}, "image_std: expected finite", id="an object"),
        pytest.param({"image_std": [0.5, 0, 0.5]}, "divides by zero", id="a deviation of zero"),
        pytest.param(CROPPING | {"do_center_crop": False}, "every image gives another size", id="no crop"),
        pytest.param(
            {"size": {"shortest_edge": 32, "longest_edge": 64}}, "limits the longest edge", id="two edges"
        ),
    ],
)
def test_an_hf_processor_that_does_more_is_refused(
    processor: dict[str, object], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelUnavailableError, match=f"its image processor .*{expected}"):
        load_with_processor(tmp_path, processor)


@pytest.mark.parametrize("model_type", ["vit", "vit_mae", "deit", "dinov2", "clip", "siglip"])
def test_without_a_file_a_family_is_seen_as_its_processor_class_does(model_type: str) -> None:
    """All but mean, std and the size before the crop, which checkpoints set: those are the class's own."""
    from transformers import AutoConfig
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    from exporter.models.hf.architectures import family_preprocess
    from exporter.models.hf.preprocess import describe_processor

    classes: Any = IMAGE_PROCESSOR_MAPPING[type(AutoConfig.for_model(model_type))]
    by_class = describe_processor(classes["torchvision"](), None, "it")
    found = family_preprocess(model_type, (224, 224))
    facts = ("image_size", "resize_mode", "to_rgb", "kernel", "fill")
    assert [getattr(found, fact) for fact in facts] == [getattr(by_class, fact) for fact in facts]
