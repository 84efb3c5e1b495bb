"""The pixels that a model takes of a photo, as a `Preprocess` says.

Copied beside engines that a server runs: only this folder, numpy and Pillow are imported here.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from exporter.models.preprocessing.image_modes import in_bytes
from exporter.models.preprocessing.resize import crop_centre, resize, resized_size

if TYPE_CHECKING:
    from exporter.models.preprocessing.preprocess import Preprocess

# Pillow's mode by channel order; its bands are the model's channels.
_MODES = {"gray": "L", "rgb": "RGB", "rgba": "RGBA"}


def crop_image(image: Image.Image, preprocess: "Preprocess") -> npt.NDArray[np.uint8]:
    """Resize and crop to the model's size, without normalising.

    Args:
        image: Any mode.
        preprocess: The model's own.

    Returns:
        (C, H, W) bytes.

    Raises:
        PIL.Image.DecompressionBombError: A strip so long that it would be resized to more pixels than Pillow
            opens.
        ValueError: Pillow cannot convert or resize an image of this mode, its numbers have no stated range, or no
            pixel is left of a strip that has to fit inside.
    """
    image = in_bytes(image)
    mode = _MODES[preprocess.channel_order]
    if preprocess.to_rgb != "last":
        image = (_over_white(image) if preprocess.to_rgb == "over_white" else image).convert(mode)
    size = resized_size(
        image.size, preprocess.image_size, preprocess.crop_fraction, mode=preprocess.resize_mode
    )
    resized = resize(image, size, preprocess.interpolation, preprocess.kernel)
    cropped = crop_centre(
        resized, preprocess.image_size, fill=preprocess.fill, down=preprocess.kernel == "torch"
    )
    pixels = np.asarray(cropped.convert(mode), dtype=np.uint8)
    pixels_HWC = pixels.reshape(*preprocess.image_size, len(mode))
    return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))


def normalize(pixels: npt.NDArray[np.uint8], preprocess: "Preprocess") -> npt.NDArray[np.float32]:
    """Make the model's input from what `crop_image` gives.

    Args:
        pixels: Bytes, (..., C, H, W).
        preprocess: The model's own.

    Returns:
        float32 of the same shape: scaled to [0, 1], less the mean, divided by the standard deviation.
    """
    mean = np.asarray(preprocess.mean, dtype=np.float32)[:, None, None]
    std = np.asarray(preprocess.std, dtype=np.float32)[:, None, None]
    values = pixels.astype(np.float32)
    values /= np.float32(255)
    values -= mean
    values /= std
    return values


def preprocess_image(image: Image.Image, preprocess: "Preprocess") -> npt.NDArray[np.float32]:
    """Make the model's input from an image.

    Args:
        image: Any mode.
        preprocess: The model's own.

    Returns:
        (C, H, W) float32, normalised.

    Raises:
        PIL.Image.DecompressionBombError, ValueError: As in `crop_image`.
    """
    return normalize(crop_image(image, preprocess), preprocess)


def _over_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
