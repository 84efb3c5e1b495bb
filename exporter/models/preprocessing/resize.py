"""The geometry of preprocessing: what size an image is resized to, by which code, and what is cropped of it.

Each rule is the one of a library's evaluation transform, so that the result equals it to the pixel.
"""

import math
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ResizeMode = Literal["crop", "squash", "pad"]
Kernel = Literal["pil", "torch"]

# Like Pillow, which warns at its limit and refuses at twice that.
LARGEST_OVER_PILLOWS_LIMIT = 2

_FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def exact_fraction(side: int, resized: int) -> float:
    """The crop fraction for which `floor(side / fraction)` is a given side.

    `side / resized` itself may fall short of it by a rounding error: 48 / (48 / 59) is 58.99999999999999.
    """
    fraction = side / resized
    return fraction if math.floor(side / fraction) == resized else math.nextafter(fraction, 0)


def resized_size(
    size: tuple[int, int], crop: tuple[int, int], fraction: float, *, mode: ResizeMode
) -> tuple[int, int]:
    """What an image is resized to.

    Args:
        size: Width and height of the image.
        crop: Height and width that are cropped afterwards.
        fraction: Of the resized size that is cropped.
        mode: As in `Preprocess`.

    Returns:
        Width and height. A square size is covered as by torchvision's `Resize`: the longer side is rounded down.
        Any other is covered, or in mode `pad` fitted inside, as by timm's `ResizeKeepRatio`: both sides are rounded
        to the nearest.
    """
    width, height = size
    to_height, to_width = (math.floor(side / fraction) for side in crop)
    if mode == "squash":
        return to_width, to_height
    if mode == "crop" and to_height == to_width:
        if width <= height:
            return to_width, to_width * height // width
        return to_height * width // height, to_height
    ratios = (height / to_height, width / to_width)
    ratio = max(ratios) if mode == "pad" else min(ratios)
    return round(width / ratio), round(height / ratio)


def resize(
    image: Image.Image, size: tuple[int, int], interpolation: Interpolation, kernel: Kernel
) -> Image.Image:
    """Resize to (width, height).

    Raises:
        PIL.Image.DecompressionBombError: That is more pixels than Pillow would open.
        ValueError: A side is zero, or Pillow cannot resize this mode.
    """
    limit = LARGEST_OVER_PILLOWS_LIMIT * (Image.MAX_IMAGE_PIXELS or math.inf)
    if size[0] * size[1] > limit:
        raise Image.DecompressionBombError(
            f"{image.width}x{image.height} pixels would be resized to {size[0]}x{size[1]}: "
            f"more than {limit} pixels"
        )
    if size == image.size:
        return image
    if kernel == "torch":
        return _resize_with_torch(image, size, interpolation)
    return image.resize(size, _FILTERS[interpolation])


def crop_centre(
    image: Image.Image, crop: tuple[int, int], *, fill: tuple[int, ...], down: bool
) -> Image.Image:
    """Crop the centre, after filling up sides that are too short.

    Args:
        image: Resized; of the model's channels if anything is to be filled.
        crop: Height and width.
        fill: Bytes of what is filled, one per channel; its odd pixel goes right and below.
        down: Whether a crop that is off centre by half a pixel starts at the pixel before; otherwise at the even one
            of the two, as in torchvision.
    """
    height, width = crop
    wider, higher = max(width - image.width, 0), max(height - image.height, 0)
    if wider or higher:
        border = (wider // 2, higher // 2, (wider + 1) // 2, (higher + 1) // 2)
        image = ImageOps.expand(image, border=border, fill=fill)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    x, y = (math.floor(left), math.floor(top)) if down else (round(left), round(top))
    return image.crop((x, y, x + width, y + height))


def _resize_with_torch(
    image: Image.Image, size: tuple[int, int], interpolation: Interpolation
) -> Image.Image:
    import torch
    from torchvision.transforms.v2 import InterpolationMode, functional

    modes = {
        "nearest": InterpolationMode.NEAREST_EXACT,
        "bilinear": InterpolationMode.BILINEAR,
        "bicubic": InterpolationMode.BICUBIC,
        "lanczos": InterpolationMode.LANCZOS,
    }
    pixels_HWC = np.array(image).reshape(image.height, image.width, -1)
    pixels_BCHW = torch.from_numpy(pixels_HWC).permute(2, 0, 1).contiguous()[None]
    resized_BCHW: torch.Tensor = functional.resize(
        pixels_BCHW, [size[1], size[0]], interpolation=modes[interpolation], antialias=True
    )
    resized_HWC = resized_BCHW[0].permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(resized_HWC if resized_HWC.shape[2] > 1 else resized_HWC[:, :, 0])
