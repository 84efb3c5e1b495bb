"""Preprocessing equals the libraries' own transforms, to the pixel, on real and odd images.

Expected pixels come from the libraries alone: their transform on the image as Pillow opens it. timm and torchvision
have the conversion to RGB in their loaders, so the expected side converts before.
"""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import timm
import torchvision
import transformers
from open_clip.transform import PreprocessCfg, image_transform, image_transform_v2, merge_preprocess_dict
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from exporter.models import Preprocess, crop_image, preprocess_image
from exporter.models.hf_preprocess import describe_processor
from exporter.models.open_clip_source import _preprocess as open_clip_preprocess
from exporter.models.timm_source import _preprocess as timm_preprocess
from exporter.models.torchvision_source import _preprocess as torchvision_preprocess
from tests.support.odd_images import FILES, HUGE, odd_image

pytestmark = pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # both sides convert them

Transform = Callable[[Image.Image], Any]

# A value near zero is the difference of two near ones: relative to itself its last bit is large.
NEAR_ZERO = 5e-7

QUICK = [name for name in FILES if name != HUGE]


def bytes_of(values_CHW: npt.NDArray[np.float32], preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Undo the normalisation in double precision, which is exact after rounding to bytes."""
    mean = np.asarray(preprocess.mean, dtype=np.float64)[:, None, None]
    std = np.asarray(preprocess.std, dtype=np.float64)[:, None, None]
    pixels: npt.NDArray[np.uint8] = np.rint((values_CHW * std + mean) * 255).astype(np.uint8)
    return pixels


def assert_equals(
    preprocess: Preprocess, transform: Transform, *, after: str = "nothing", names: Iterable[str] = QUICK
) -> None:
    """Compare on every image.

    Args:
        preprocess: Ours.
        transform: The library's.
        after: `loader`, if the library's loader converts to RGB before the transform.
        names: Of the images.
    """
    for name in names:
        image = odd_image(name)
        given = image.convert("RGB") if after == "loader" else image
        expected = np.asarray(transform(given), dtype=np.float32).reshape(3, *preprocess.image_size)
        np.testing.assert_array_equal(
            crop_image(image, preprocess), bytes_of(expected, preprocess), err_msg=name
        )
        np.testing.assert_allclose(
            preprocess_image(image, preprocess), expected, rtol=1e-6, atol=NEAR_ZERO, err_msg=name
        )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("vit_base_patch16_224.augreg_in21k_ft_in1k", id="crop 0.9"),
        pytest.param("vit_base_patch16_224_miil.in21k", id="crop 0.875, bilinear"),
        pytest.param("test_byobnet.r160_in1k", id="crop 0.95"),
        pytest.param("beit3_base_patch16_224.in22k_ft_in1k", id="crop 1.0"),
        pytest.param("volo_d4_448.sail_in1k", id="crop 1.15, which pads"),
        pytest.param("vit_base_patch16_siglip_384.webli", id="squash"),
        pytest.param("dm_nfnet_f0.dm_in1k", id="squash, crop 0.9"),
        pytest.param("vit_base_patch16_sapiens2.fb", id="not square"),
        pytest.param("deepseek_vit_412m.deepseek_v4_flash_vision_exp", id="border"),
    ],
)
def test_timms_evaluation_transform(name: str) -> None:
    assert_equals(*timm_pair(name), after="loader")


def timm_pair(name: str) -> tuple[Preprocess, Transform]:
    config = timm.get_pretrained_cfg(name).to_dict()  # type: ignore[union-attr]
    data: dict[str, Any] = resolve_data_config({}, pretrained_cfg=config)  # type: ignore[no-untyped-call]
    return (
        timm_preprocess(SimpleNamespace(pretrained_cfg=config), data["input_size"][1:]),
        create_transform(**data, is_training=False),
    )


@pytest.mark.parametrize("library", ["timm", "torchvision", "open_clip", "transformers"])
def test_a_huge_photo(library: str) -> None:
    preset = torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1.transforms()
    processor = transformers.CLIPImageProcessor()
    own = open_clip.get_pretrained_cfg("ViT-B-32", "openai")
    pairs: dict[str, tuple[Preprocess, Transform]] = {
        "timm": timm_pair("vit_base_patch16_224.augreg_in21k_ft_in1k"),
        "torchvision": (torchvision_preprocess(preset, 224), preset),
        "open_clip": (
            open_clip_preprocess("ViT-B-32", "openai", (224, 224)),
            image_transform(224, is_train=False, mean=own["mean"], std=own["std"]),
        ),
        "transformers": (describe_processor(processor, None, "it"), pixel_values(processor)),
    }
    assert_equals(*pairs[library], names=[HUGE])


@pytest.mark.parametrize("size", [96, 100, 240])
def test_timms_transform_at_another_size(size: int) -> None:
    config = timm.get_pretrained_cfg("vit_small_patch16_384.augreg_in21k_ft_in1k").to_dict()  # type: ignore[union-attr]
    data: dict[str, Any] = resolve_data_config({"img_size": size}, pretrained_cfg=config)  # type: ignore[no-untyped-call]
    preprocess = timm_preprocess(SimpleNamespace(pretrained_cfg=config), (size, size))
    image = odd_image("odd sides")
    expected = create_transform(**data, is_training=False, normalize=False)(image).numpy()
    np.testing.assert_array_equal(crop_image(image, preprocess), expected)


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        pytest.param("vit_b_16", "IMAGENET1K_V1", id="256 to 224, bilinear"),
        pytest.param("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", id="384, bicubic"),
        pytest.param("vit_l_16", "IMAGENET1K_V1", id="242 to 224"),
        pytest.param("swin_t", "IMAGENET1K_V1", id="232 to 224, bicubic"),
    ],
)
def test_torchvisions_preset(name: str, tag: str) -> None:
    preset = torchvision.models.get_model_weights(name)[tag].transforms()
    preset.antialias = True  # False only makes it warn: on PIL images it has no effect
    assert_equals(torchvision_preprocess(preset, preset.crop_size[0]), preset, after="loader")


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        pytest.param("ViT-B-32", "openai", id="OpenAI"),
        pytest.param("ViT-B-16-SigLIP", "webli", id="SigLIP"),
        pytest.param("MobileCLIP-S1", "datacompdr", id="bilinear"),
    ],
)
def test_open_clips_transform_of_opened_images(name: str, tag: str) -> None:
    config = open_clip.get_pretrained_cfg(name, tag)
    own = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), config))
    assert_equals(open_clip_preprocess(name, tag, (224, 224)), image_transform_v2(own, is_train=False))


def test_open_clips_transform_without_a_tag_and_not_square() -> None:
    preprocess = open_clip_preprocess("ViT-B-32", "", (64, 96))
    assert_equals(preprocess, image_transform((64, 96), is_train=False))


@pytest.mark.parametrize(
    ("class_name", "changes", "after"),
    [
        pytest.param("ViTImageProcessor", {}, "loader", id="ViT"),
        pytest.param("DeiTImageProcessor", {}, "loader", id="DeiT: squash, then crop"),
        pytest.param("BitImageProcessor", {"size": {"shortest_edge": 256}}, "nothing", id="DINOv2"),
        pytest.param("CLIPImageProcessor", {}, "nothing", id="CLIP"),
        pytest.param("CLIPImageProcessor", {"do_convert_rgb": False}, "loader", id="CLIP, not converting"),
        pytest.param("SiglipImageProcessor", {}, "nothing", id="SigLIP"),
        pytest.param("BeitImageProcessor", {"size": 256, "do_center_crop": True}, "loader", id="BEiT"),
        pytest.param(
            "CLIPImageProcessor",
            {"size": {"shortest_edge": 64}, "crop_size": 81, "resample": 1, "do_normalize": False},
            "nothing",
            id="cropping more than there is, Lanczos, not normalising",
        ),
        pytest.param(
            "ViTImageProcessor", {"size": 48, "resample": 0, "image_mean": 0.4}, "loader", id="nearest"
        ),
    ],
)
def test_the_processors_that_transformers_makes(class_name: str, changes: dict[str, Any], after: str) -> None:
    processor = getattr(transformers, class_name)(**changes)
    assert_equals(
        describe_processor(processor, None, "it"),
        pixel_values(processor),
        after=after,
    )


def pixel_values(processor: Any) -> Transform:
    return lambda image: processor(image, return_tensors="np")["pixel_values"]


def test_images_cover_what_pillow_distinguishes() -> None:
    modes = {odd_image(name).mode for name in FILES}
    assert modes >= {"RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "I;16"}
    assert len(FILES) >= 20


def test_a_wrong_kernel_filter_crop_or_conversion_is_seen() -> None:
    processor = transformers.DeiTImageProcessor(size=257, do_convert_rgb=True)
    right = describe_processor(processor, None, "it")
    for change in (
        {"kernel": "pil"},
        {"interpolation": "bilinear"},
        {"crop_fraction": 224 / 256},
        {"to_rgb": "first"},
        {"resize_mode": "crop"},
    ):
        wrong = Preprocess(**{**vars(right), **change})
        with pytest.raises(AssertionError):
            assert_equals(wrong, pixel_values(processor))
