"""Images that are not square, not of three channels, or of another size than a checkpoint of transformers has."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from exporter.errors import ModelUnavailableError, UsageError
from exporter.models import ModelRequest, load, preprocess_image
from exporter.models.hf.preprocess import describe_processor
from exporter.models.weights import redraw_constant_parameters
from tests.support.hf_families import DINO, class_token, image_features, logits, of, pooled
from tests.support.loaded_models import assert_captures, assert_computes


def save(folder: Path, name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    model = of(name, **{**(DINO if "ino" in name else {}), **changes})().eval()
    redraw_constant_parameters(model)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        pytest.param("ViTForImageClassification", {"num_channels": 1}, logits, id="one channel"),
        pytest.param("ViTForImageClassification", {"num_channels": 4}, logits, id="four channels"),
        pytest.param("CLIPModel", {"num_channels": 1}, image_features, id="one channel in a part"),
        pytest.param(
            "ViTForImageClassification", {"image_size": [64, 64]}, logits, id="a pair of equal sides"
        ),
        pytest.param("ViTForImageClassification", {"image_size": [64, 96]}, logits, id="not square"),
        pytest.param("ViTForImageClassification", {"patch_size": [8, 16]}, logits, id="patches not square"),
        pytest.param("BeitForImageClassification", {"image_size": [32, 48]}, logits, id="relative positions"),
        pytest.param("DINOv3ViTModel", {"image_size": 48}, pooled, id="rotary positions"),
    ],
)
def test_the_checkpoints_own_shape_is_taken(name: str, changes: Any, expected: Any, tmp_path: Path) -> None:
    model = save(tmp_path, name, **changes)
    loaded = load(ModelRequest(model=f"hf:{tmp_path}"))
    size = changes.get("image_size", 32)
    height, width = (size, size) if isinstance(size, int) else size
    assert loaded.example_input.shape == (changes.get("num_channels", 3), height, width)
    assert loaded.preprocess is not None
    assert loaded.preprocess.input_shape == loaded.example_input.shape
    assert_computes(loaded, partial(expected, model))


@pytest.mark.parametrize("size", [(48, 48), (16, 128)], ids=str)
@pytest.mark.parametrize(
    ("name", "asks"),
    [
        pytest.param("ViTForImageClassification", True, id="ViT"),
        pytest.param("DeiTForImageClassification", True, id="DeiT"),
        pytest.param("Dinov2ForImageClassification", False, id="DINOv2, which always resamples"),
        pytest.param("CLIPVisionModelWithProjection", True, id="CLIP, whose positions are for a square"),
        pytest.param("SiglipForImageClassification", True, id="SigLIP"),
        pytest.param("DINOv3ViTModel", False, id="DINOv3, without a table"),
    ],
)
def test_positions_are_resampled_as_transformers_does(
    name: str, asks: bool, size: tuple[int, int], tmp_path: Path
) -> None:
    model = save(tmp_path, name)
    loaded = load(ModelRequest(model=f"hf:{tmp_path}", image_size=size))
    assert loaded.example_input.shape == (3, *size)
    assert loaded.preprocess is not None
    assert loaded.preprocess.image_size == size

    def expected(images: torch.Tensor) -> torch.Tensor:
        output = model(images, **({"interpolate_pos_encoding": True} if asks else {}))
        keys = ("logits", "image_embeds", "pooler_output")
        return next(getattr(output, key) for key in keys if key in output)  # type: ignore[no-any-return]

    assert_computes(loaded, expected)
    assert any("resampled from 32 to" in note for note in loaded.notes)


@pytest.mark.parametrize("name", ["ViTModel", "Dinov2Model", "CLIPModel"])
def test_a_program_for_another_size_resamples_nothing(name: str, tmp_path: Path) -> None:
    save(tmp_path, name)
    graph = assert_captures(load(ModelRequest(model=f"hf:{tmp_path}", image_size=(32, 64))))
    assert not any("upsample" in str(node.target) for node in graph.nodes)


def test_random_weights_take_any_size(tmp_path: Path) -> None:
    save(tmp_path, "CLIPModel")
    loaded = load(ModelRequest(model=f"hf:{tmp_path}", image_size=(32, 64), weights="random"))
    assert loaded.example_input.shape == (3, 32, 64)


@pytest.mark.parametrize(
    ("name", "changes", "size", "expected"),
    [
        pytest.param(
            "BeitModel",
            {"use_relative_position_bias": True},
            (48, 48),
            "relative_position_bias_table is made for",
            id="relative positions",
        ),
        pytest.param(
            "ViTModel", {}, (33, 64), "multiple of its patch size 8, got 33; use 32 or 40", id="height"
        ),
        pytest.param("ViTModel", {}, (64, 33), "multiple of its patch size 8, got 33", id="width"),
        pytest.param(
            "ViTModel", {"patch_size": [8, 16]}, (32, 40), "patch size 16, got 40", id="pair of patches"
        ),
    ],
)
def test_a_size_that_cannot_be_is_refused(
    name: str, changes: Any, size: tuple[int, int], expected: str, tmp_path: Path
) -> None:
    save(tmp_path, name, **changes)
    with pytest.raises(UsageError, match=expected):
        load(ModelRequest(model=f"hf:{tmp_path}", image_size=size))


GRAY = {"image_mean": [0.4], "image_std": [0.2]}


@pytest.mark.parametrize(
    ("class_name", "keys", "mode"),
    [
        pytest.param("ViTImageProcessor", {"size": {"height": 48, "width": 64}}, "RGB", id="not square"),
        pytest.param(
            "DeiTImageProcessor",
            {"size": {"height": 64, "width": 96}, "crop_size": {"height": 32, "width": 48}},
            "RGB",
            id="squashed and cropped, not square",
        ),
        pytest.param("ViTImageProcessor", {"size": 32, **GRAY}, "L", id="one channel"),
        pytest.param(
            "CLIPImageProcessor",
            {"size": {"shortest_edge": 40}, "crop_size": 32, "do_convert_rgb": False, **GRAY},
            "L",
            id="one channel, cropped",
        ),
        pytest.param(
            "ViTImageProcessor",
            {"size": 32, "image_mean": [0.1, 0.2, 0.3, 0.4], "image_std": [0.5] * 4},
            "RGBA",
            id="four channels",
        ),
    ],
)
def test_photos_become_what_the_processor_makes_of_them(class_name: str, keys: Any, mode: str) -> None:
    processor = getattr(transformers, class_name)(**keys)
    channels = len(Image.new(mode, (1, 1)).getbands())
    preprocess = describe_processor(processor, None, "it", channels)
    noise = np.random.default_rng(0).integers(0, 256, (71, 53, channels), dtype=np.uint8)
    image = Image.fromarray(noise.squeeze(), mode=mode)
    expected = processor(image, return_tensors="np", input_data_format=None)["pixel_values"][0]
    np.testing.assert_allclose(preprocess_image(image, preprocess), expected, rtol=1e-6, atol=1e-6)


def with_processor(folder: Path, channels: int, **keys: Any) -> ModelRequest:
    save(folder, "ViTModel", num_channels=channels)
    content = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, **keys}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return ModelRequest(model=f"hf:{folder}")


@pytest.mark.parametrize("channels", [1, 4])
def test_one_mean_for_all_channels_is_spread_with_a_note(channels: int, tmp_path: Path) -> None:
    loaded = load(with_processor(tmp_path, channels, image_mean=[0.5] * 3, image_std=[0.25] * 3))
    assert loaded.preprocess is not None
    assert (loaded.preprocess.mean, loaded.preprocess.std) == ((0.5,) * channels, (0.25,) * channels)
    assert any("mean and std are of one channel" in note for note in loaded.notes)


def test_means_of_other_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelUnavailableError, match="3 numbers in image_mean, and the model takes 1 channels"
    ):
        load(with_processor(tmp_path, 1, image_mean=[0.1, 0.2, 0.3]))


def test_channels_that_no_photo_has_leave_the_preprocessing_open(tmp_path: Path) -> None:
    save(tmp_path, "ViTModel", num_channels=6)
    loaded = load(ModelRequest(model=f"hf:{tmp_path}"))
    assert loaded.preprocess is None
    assert any("no photo has 6 channels" in note for note in loaded.notes)


def test_a_guess_is_noted_and_goes_when_the_user_says_it(tmp_path: Path) -> None:
    save(tmp_path / "m", "ViTModel")
    said = {"image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (tmp_path / "p.json").write_text(json.dumps(said))
    (guess,) = load(ModelRequest(model=f"hf:{tmp_path / 'm'}")).notes
    assert guess.startswith(
        "preprocessing guessed: there is no preprocessor_config.json (vit default: 32, squash bilinear, "
        "mean 0.5/0.5/0.5, std 0.5/0.5/0.5); give --preprocess"
    )
    told = load(ModelRequest(model=f"hf:{tmp_path / 'm'}", preprocess=str(tmp_path / "p.json")))
    assert not any("guessed" in note for note in told.notes)
    assert told.preprocess is not None
    assert told.preprocess.interpolation == "bicubic"


def test_a_processor_without_a_name_is_noted(tmp_path: Path) -> None:
    loaded = load(with_processor(tmp_path, 3, image_processor_type=None))
    assert any("names no image_processor_type" in note for note in loaded.notes)


def test_a_refused_processor_can_be_said_instead(tmp_path: Path) -> None:
    request = with_processor(tmp_path / "m", 3, do_resize=False)
    (tmp_path / "p.json").write_text(json.dumps({"image_size": 32, "mean": [0] * 3, "std": [1] * 3}))
    with pytest.raises(ModelUnavailableError, match="does not resize.*--preprocess FILE.json"):
        load(request)
    loaded = load(ModelRequest(model=request.model, preprocess=str(tmp_path / "p.json")))
    assert loaded.preprocess is not None


def test_class_tokens_are_taken_without_a_note(tmp_path: Path) -> None:
    model = save(tmp_path, "ViTMSNModel")
    transformers.ViTImageProcessor(size=32).save_pretrained(tmp_path)
    loaded = load(ModelRequest(model=f"hf:{tmp_path}"))
    assert_computes(loaded, partial(class_token, model))
    assert loaded.notes == ()


@pytest.mark.parametrize(
    ("name", "keys", "weights", "size", "expected"),
    [
        pytest.param(
            "ViTModel",
            {"image_processor_type": "ViTImageProcessor"},
            None,
            32,
            ("preprocessing guessed in part: its file states no size, so 32 is taken, the model's",),
            id="not stated, and refused elsewhere",
        ),
        pytest.param(
            "CLIPVisionModelWithProjection",
            {"image_processor_type": "CLIPImageProcessor"},
            None,
            32,
            ("preprocessing guessed in part: its file states no crop_size, so 32 is taken, the model's",),
            id="no crop stated",
        ),
        pytest.param(
            "Dinov2Model",
            {"image_processor_type": "ViTImageProcessor"},
            None,
            224,
            (
                "image size 224 is the processor's; the model's own is 32; positions resampled",
                "preprocessing guessed in part: its file states no size, so 224 is taken, that of ViTImageProcessor",
            ),
            id="not stated, and transformers resamples",
        ),
        pytest.param(
            "ViTModel",
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 64}},
            None,
            (48, 64),
            ("image size 48x64 is the processor's; the model's own is 32; positions resampled",),
            id="stated",
        ),
        pytest.param(
            "ViTModel",
            {"image_processor_type": "ViTImageProcessor", "size": 48},
            "random",
            48,
            ("image size 48 is the processor's; the model's own is 32",),
            id="random weights have no positions to resample",
        ),
    ],
)
def test_a_processor_of_another_size_is_noted(
    name: str, keys: Any, weights: Any, size: Any, expected: tuple[str, ...], tmp_path: Path
) -> None:
    save(tmp_path, name)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(keys))
    loaded = load(ModelRequest(model=f"hf:{tmp_path}", **({"weights": weights} if weights else {})))
    assert loaded.preprocess is not None
    assert loaded.preprocess.image_size == ((size, size) if isinstance(size, int) else size)
    assert loaded.example_input.shape == loaded.preprocess.input_shape
    assert tuple(note for note in loaded.notes if not note.startswith("features")) == expected
