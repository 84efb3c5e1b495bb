"""How a photo becomes a model's input: resize, crop, scale to [0, 1], normalise.

Every source describes its own model with one `Preprocess`; the later rooms only read it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from exporter.errors import BundleError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ResizeMode = Literal["crop", "squash"]

_FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How to make a model's input from an image.

    Attributes:
        image_size: Height and width of the input in pixels.
        interpolation: Filter of the resize.
        crop_fraction: Side of the crop as a fraction of the resized shortest side; 1.0 crops nothing of it.
        mean: Subtracted per channel, on values in [0, 1].
        std: Divided by per channel, after the mean.
        resize_mode: `crop` keeps the aspect and crops the centre; `squash` resizes both sides.
        channel_order: Always `rgb`.
        layout: Always `NCHW`.
    """

    image_size: tuple[int, int]
    interpolation: Interpolation
    crop_fraction: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_mode: ResizeMode = "crop"
    channel_order: Literal["rgb"] = "rgb"
    layout: Literal["NCHW"] = "NCHW"

    def to_dict(self) -> dict[str, Any]:
        """The content of a bundle's `preprocess.json`: JSON types only."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Preprocess":
        """Read what `to_dict` wrote.

        Raises:
            BundleError: A key is missing or unknown, or a value is of the wrong kind.
        """
        known = {field.name for field in fields(cls)}
        if wrong := sorted(known.symmetric_difference(data)):
            raise BundleError(
                f"preprocess.json: missing or unknown keys {', '.join(wrong)}; export the bundle again"
            )
        try:
            _check_choices(data)
            height, width = (int(side) for side in data["image_size"])
            return cls(
                image_size=(height, width),
                interpolation=data["interpolation"],
                crop_fraction=float(data["crop_fraction"]),
                mean=tuple(float(value) for value in data["mean"]),
                std=tuple(float(value) for value in data["std"]),
                resize_mode=data["resize_mode"],
            )
        except (TypeError, ValueError) as error:
            raise BundleError(f"preprocess.json: {error}; export the bundle again") from error


def crop_image(image: Image.Image, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Resize and crop to the model's size, without normalising.

    Args:
        image: Any mode; converted to RGB.
        preprocess: The model's own.

    Returns:
        (3, H, W) bytes.
    """
    height, width = preprocess.image_size
    resized = image.convert("RGB").resize(
        _resized_size(image.size, preprocess), _FILTERS[preprocess.interpolation]
    )
    left = round((resized.width - width) / 2)
    top = round((resized.height - height) / 2)
    cropped = resized.crop((left, top, left + width, top + height))
    return np.ascontiguousarray(np.asarray(cropped, dtype=np.uint8).transpose(2, 0, 1))


def preprocess_image(image: Image.Image, preprocess: Preprocess) -> npt.NDArray[np.float32]:
    """Make the model's input from an image.

    Args:
        image: Any mode; converted to RGB.
        preprocess: The model's own.

    Returns:
        (3, H, W) float32, normalised.
    """
    pixels = crop_image(image, preprocess).astype(np.float32) / np.float32(255)
    mean = np.asarray(preprocess.mean, dtype=np.float32)[:, None, None]
    std = np.asarray(preprocess.std, dtype=np.float32)[:, None, None]
    return ((pixels - mean) / std).astype(np.float32)


def _resized_size(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """(width, height) to resize to, so that the centre crop of the input size fits inside."""
    height, width = preprocess.image_size
    if preprocess.resize_mode == "squash":
        return width, height
    # Down to a whole pixel, as timm and torchvision do; the margin absorbs 242 / (224 / 242) = 241.999...
    wanted_height = int(height / preprocess.crop_fraction + 1e-6)
    wanted_width = int(width / preprocess.crop_fraction + 1e-6)
    if wanted_height * size[0] >= wanted_width * size[1]:
        return max(wanted_width, wanted_height * size[0] // size[1]), wanted_height
    return wanted_width, max(wanted_height, wanted_width * size[1] // size[0])


def _check_choices(data: Mapping[str, Any]) -> None:
    choices = {
        "interpolation": get_args(Interpolation),
        "resize_mode": get_args(ResizeMode),
        "channel_order": ("rgb",),
        "layout": ("NCHW",),
    }
    for key, allowed in choices.items():
        if data[key] not in allowed:
            raise ValueError(f'{key} must be one of {", ".join(allowed)}, got "{data[key]}"')
    if not 0 < float(data["crop_fraction"]) <= 1:
        raise ValueError(f"crop_fraction must be above 0 and at most 1, got {data['crop_fraction']}")
    if len(data["mean"]) != len(data["std"]):
        raise ValueError(f"mean has {len(data['mean'])} channels and std {len(data['std'])}")
