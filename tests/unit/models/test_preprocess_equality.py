"""Preprocessing equals the libraries' own transforms, to the pixel, on real and odd images.

Expected pixels come from the libraries alone: their transform on the image as Pillow opens it. timm and torchvision
have the conversion to the model's channels in their loaders, so the expected side converts before. 16-bit grey, which
all of them clip to white, is scaled to bytes before they see it.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict
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
from exporter.models.hf.preprocess import describe_processor
from exporter.models.open_clip.source import describe_preprocess
from exporter.models.timm.source import _preprocess as timm_preprocess
from exporter.models.torchvision.source import _preprocess as torchvision_preprocess
from tests.support.odd_images import FILES, HUGE, odd_image

pytestmark = pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # both sides convert them

Transform = Callable[[Image.Image], Any]

# A value near zero is the difference of two near ones: relative to itself its last bit is large.
NEAR_ZERO = 5e-7

QUICK = [name for name in FILES if name != HUGE]
SOME = QUICK[::3]  # for the larger inputs

# Pillow's modes, as timm's loader is told by `input_img_mode`; mean, standard deviation and fill of as many channels.
CHANNELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gray": ("L", {"mean": (0.4,), "std": (0.3,), "fill": (102,)}),
    "rgb": ("RGB", {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "fill": (128, 102, 76)}),
    "rgba": ("RGBA", {"mean": (0.5, 0.4, 0.3, 0.2), "std": (0.2, 0.3, 0.4, 0.5), "fill": (128, 102, 76, 51)}),
}


def bytes_of(values_CHW: npt.NDArray[np.float32], preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Undo the normalisation in double precision, which is exact after rounding to bytes."""
    mean = np.asarray(preprocess.mean, dtype=np.float64)[:, None, None]
    std = np.asarray(preprocess.std, dtype=np.float64)[:, None, None]
    pixels: npt.NDArray[np.uint8] = np.rint((values_CHW * std + mean) * 255).astype(np.uint8)
    return pixels


def sixteen_bits_scaled(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as bytes; the libraries would clip it to white."""
    if image.mode != "I;16":
        return image
    return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))


def assert_equals(
    preprocess: Preprocess, transform: Transform, *, after: str = "nothing", names: Iterable[str] = ()
) -> None:
    """Compare on every image.

    Args:
        preprocess: Ours.
        transform: The library's.
        after: `loader`, if the library's loader converts to the model's channels before the transform.
        names: Of the images; by default all, or some where the input is large.
    """
    is_large = max(preprocess.image_size) > 256
    for name in names or (SOME if is_large else QUICK):
        image = odd_image(name)
        scaled = sixteen_bits_scaled(image)
        given = scaled.convert(CHANNELS[preprocess.channel_order][0]) if after == "loader" else scaled
        expected = np.asarray(transform(given), dtype=np.float32).reshape(preprocess.input_shape)
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
        timm_preprocess(SimpleNamespace(pretrained_cfg=config), data["input_size"][1:], "rgb"),
        create_transform(**data, is_training=False),
    )


@pytest.mark.parametrize("order", [pytest.param(order, id=order) for order in CHANNELS])
@pytest.mark.parametrize(
    ("size", "crop_mode", "crop_fraction", "interpolation"),
    [
        pytest.param((64, 64), "center", 0.9, "bicubic", id="square"),
        pytest.param((64, 96), "center", 0.875, "bilinear", id="wide"),
        pytest.param((96, 40), "center", 1.0, "lanczos", id="high, everything kept"),
        pytest.param((40, 96), "center", 1.15, "bicubic", id="wide, which pads"),
        pytest.param((96, 64), "squash", 0.9, "bicubic", id="high, squash"),
        pytest.param((64, 96), "border", 0.95, "bilinear", id="wide, border"),
    ],
)
def test_timms_transform_of_other_channels_and_sizes(
    size: tuple[int, int], crop_mode: str, crop_fraction: float, interpolation: str, order: str
) -> None:
    channels = CHANNELS[order][1]
    modes = {"center": "crop", "squash": "squash", "border": "pad"}
    preprocess = Preprocess(
        image_size=size,
        interpolation=interpolation,  # type: ignore[arg-type]
        crop_fraction=crop_fraction,
        resize_mode=modes[crop_mode],  # type: ignore[arg-type]
        channel_order=order,  # type: ignore[arg-type]
        **channels | ({} if crop_mode == "border" else {"fill": (0,) * len(channels["fill"])}),
    )
    transform = create_transform(
        input_size=(len(channels["mean"]), *size),
        mean=channels["mean"],
        std=channels["std"],
        crop_mode=crop_mode,
        crop_pct=crop_fraction,
        interpolation=interpolation,
        is_training=False,
    )
    assert_equals(preprocess, transform, after="loader")


@pytest.mark.parametrize("library", ["timm", "torchvision", "open_clip", "transformers"])
def test_a_huge_photo(library: str) -> None:
    preset = torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1.transforms()
    processor = transformers.CLIPImageProcessor()
    own = open_clip.get_pretrained_cfg("ViT-B-32", "openai")
    pairs: dict[str, tuple[Preprocess, Transform]] = {
        "timm": timm_pair("vit_base_patch16_224.augreg_in21k_ft_in1k"),
        "torchvision": (torchvision_preprocess(preset, 224), preset),
        "open_clip": (
            describe_preprocess(merge_preprocess_dict(PreprocessCfg(), own), (224, 224)),
            image_transform(224, is_train=False, mean=own["mean"], std=own["std"]),
        ),
        "transformers": (describe_processor(processor, None, "it"), pixel_values(processor)),
    }
    assert_equals(*pairs[library], names=[HUGE])


@pytest.mark.parametrize("size", [96, 100, 240])
def test_timms_transform_at_another_size(size: int) -> None:
    config = timm.get_pretrained_cfg("vit_small_patch16_384.augreg_in21k_ft_in1k").to_dict()  # type: ignore[union-attr]
    data: dict[str, Any] = resolve_data_config({"img_size": size}, pretrained_cfg=config)  # type: ignore[no-untyped-call]
    preprocess = timm_preprocess(SimpleNamespace(pretrained_cfg=config), (size, size), "rgb")
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
    assert_equals(describe_preprocess(asdict(own), (224, 224)), image_transform_v2(own, is_train=False))


def test_open_clips_transform_without_a_tag_and_not_square() -> None:
    preprocess = describe_preprocess(asdict(PreprocessCfg()), (64, 96))
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


@pytest.mark.parametrize("order", [pytest.param(order, id=order) for order in CHANNELS])
@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        pytest.param(
            {"size": {"height": 64, "width": 96}},
            {"image_size": (64, 96), "resize_mode": "squash", "crop_fraction": 1.0},
            id="squash to a wide input",
        ),
        pytest.param(
            {"size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": 48},
            {"image_size": (48, 48), "crop_fraction": 0.75},
            id="crop",
        ),
        pytest.param(
            {"size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": 81},
            {"image_size": (81, 81), "crop_fraction": 81 / 64},
            id="cropping more than there is",
        ),
    ],
)
def test_a_processors_pixels_of_other_channels_and_sizes(
    changes: dict[str, Any], ours: dict[str, Any], order: str
) -> None:
    look = {name: CHANNELS[order][1][name] for name in ("mean", "std")}
    processor = transformers.CLIPImageProcessor(
        **{"do_center_crop": False} | changes,
        do_convert_rgb=False,
        image_mean=list(look["mean"]),
        image_std=list(look["std"]),
    )
    preprocess = Preprocess(
        **ours,
        **look,
        interpolation="bicubic",
        channel_order=order,  # type: ignore[arg-type]
        fill=(0,) * len(look["mean"]),
        kernel="torch",
    )
    assert_equals(preprocess, pixel_values(processor), after="loader")


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
