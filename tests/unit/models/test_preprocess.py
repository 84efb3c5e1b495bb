"""Preprocessing equals the libraries' own transforms, pixel for pixel."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from exporter.errors import BundleError
from exporter.models import ModelRequest, Preprocess, crop_image, load, preprocess_image

HALF = (0.5, 0.5, 0.5)


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


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (256, 256), (90, 401)], ids=str)
@pytest.mark.parametrize("name", ["vit_base_patch16_224.augreg_in21k_ft_in1k", "deit3_small_patch16_224"])
def test_it_equals_timms_evaluation_transform(name: str, size: tuple[int, int]) -> None:
    config: Any = timm.get_pretrained_cfg(name)
    data: dict[str, Any] = resolve_data_config({}, pretrained_cfg=config.to_dict())  # type: ignore[no-untyped-call]
    expected = create_transform(**data)(photo(*size)).numpy()
    preprocess = plain(
        image_size=(224, 224), crop_fraction=data["crop_pct"], mean=data["mean"], std=data["std"]
    )
    np.testing.assert_allclose(preprocess_image(photo(*size), preprocess), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (90, 401)], ids=str)
@pytest.mark.parametrize("name", ["vit_b_16", "vit_l_16", "vit_b_16/IMAGENET1K_SWAG_LINEAR_V1"])
def test_it_equals_torchvisions_preset(name: str, size: tuple[int, int]) -> None:
    architecture, _, tag = name.partition("/")
    weights = torchvision.models.get_model_weights(architecture)[tag or "DEFAULT"]
    from exporter.models.torchvision_source import _preprocess

    preset = weights.transforms()
    preset.antialias = True
    expected = preset(photo(*size)).numpy()
    actual = preprocess_image(photo(*size), _preprocess(preset, preset.crop_size[0]))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_squash_resizes_both_sides() -> None:
    squashed = crop_image(photo(300, 200), plain(resize_mode="squash"))
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


def test_a_dictionary_round_trip_through_json_changes_nothing() -> None:
    preprocess = plain(resize_mode="squash")
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"extra": 1}, id="unknown key"),
        pytest.param({"interpolation": "magic"}, id="unknown filter"),
        pytest.param({"layout": "NHWC"}, id="unknown layout"),
        pytest.param({"crop_fraction": 0}, id="nothing left"),
        pytest.param({"mean": [0.5]}, id="channels differ"),
        pytest.param({"image_size": [32]}, id="one side"),
        pytest.param({"std": None}, id="no list"),
    ],
)
def test_a_damaged_dictionary_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match=r"preprocess\.json"):
        Preprocess.from_dict(plain().to_dict() | change)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        pytest.param(
            {
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
                "resample": 3,
                "image_mean": [0.1, 0.2, 0.3],
                "image_std": [1, 1, 1],
            },
            plain(image_size=(224, 224), mean=(0.1, 0.2, 0.3), std=(1, 1, 1)),
            id="centre crop",
        ),
        pytest.param(
            {"size": {"height": 64, "width": 64}, "resample": 2, "image_mean": HALF, "image_std": HALF},
            plain(image_size=(64, 64), interpolation="bilinear", crop_fraction=1.0, resize_mode="squash"),
            id="squash",
        ),
        pytest.param(
            {"size": 32, "crop_size": 32, "do_normalize": False},
            plain(crop_fraction=1.0, mean=(0.0,) * 3, std=(1.0,) * 3),
            id="plain numbers, not normalised",
        ),
    ],
)
def test_an_hf_processor_says_how_photos_are_seen(
    processor: dict[str, object], expected: Preprocess, tmp_path: Path
) -> None:
    config = {"model_type": "vit", "architectures": ["ViTModel"], "hidden_size": 32, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 32, "image_size": 32, "patch_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    loaded = load(ModelRequest(model=f"hf:{tmp_path}", weights="random"))
    assert loaded.preprocess == expected
    assert loaded.example_input.shape == (3, *expected.image_size)
    assert isinstance(loaded.module, torch.nn.Module)
