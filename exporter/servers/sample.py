"""The sample of a bundle as a request to a server: the model's inputs themselves, or images that become them."""

import io
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from exporter.bundle import Bundle
from exporter.errors import BundleError
from exporter.models import Preprocess, crop_image, preprocess_image
from exporter.signature import Array

_ROUNDING = 1e-4
"""Of normalised pixels; the smallest grey level is four times as much."""

_DIMENSIONS = {"gray": (), "rgb": (3,), "rgba": (4,)}
"""What Pillow wants after height and width of pixels."""


def sample_files(bundle: Bundle, target: str) -> Array:
    """PNG files (n, 1), of bytes, which the bundle's preprocessing makes the sample's inputs of.

    Args:
        bundle: that takes photos.
        target: whose sample.

    Raises:
        BundleError: the sample is of no images.
    """
    preprocess, manifest = bundle.preprocess(), bundle.manifest
    if preprocess is None:
        raise BundleError(
            f"{bundle.path}: expected a bundle that takes photos, got one without preprocess.json"
        )
    inputs = bundle.sample(target)[manifest.inputs[0].name]
    inputs_BCHW = inputs.transpose(0, 3, 1, 2) if manifest.layout == "nhwc" else inputs
    files = np.empty((len(inputs), 1), dtype=np.object_)
    for row, input_CHW in enumerate(inputs_BCHW):
        pixels_CHW = input_CHW if manifest.input == "uint8" else _pixels_of(input_CHW, preprocess)
        found = _images_of(pixels_CHW, preprocess)
        image = next((each for each in found if _makes(each, input_CHW, preprocess)), None)
        if image is None:
            raise BundleError(
                f"{bundle.path}: its sample is not what its preprocessing makes of an image; export the bundle again"
            )
        stream = io.BytesIO()
        image.save(stream, "PNG")
        files[row, 0] = stream.getvalue()
    return files


def _makes(image: Image.Image, input_CHW: Array, preprocess: Preprocess) -> bool:
    prepared = crop_image if input_CHW.dtype == np.uint8 else preprocess_image
    return np.allclose(prepared(image, preprocess), input_CHW, atol=_ROUNDING)


def _pixels_of(input_CHW: Array, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """The bytes that were normalised."""
    mean, std = (np.array(each)[:, None, None] for each in (preprocess.mean, preprocess.std))
    pixels_CHW: npt.NDArray[np.uint8] = np.rint((input_CHW * std + mean) * 255).clip(0, 255).astype(np.uint8)
    return pixels_CHW


def _images_of(pixels_CHW: npt.NDArray[np.uint8], preprocess: Preprocess) -> Iterator[Image.Image]:
    """Images of the sizes that preprocessing crops or fills up to these pixels, without resizing them.

    It crops both axes, or it fills up both of them (a crop fraction above one), or one of them only; which, the caller
    finds by trying.
    """
    height, width = preprocess.image_size
    to_height, to_width = (math.floor(side / preprocess.crop_fraction) for side in preprocess.image_size)
    for sides in ((to_height, to_width), (to_height, width), (height, to_width)):
        pixels_HWC = pixels_CHW.transpose(1, 2, 0)
        for axis, side in enumerate(sides):
            pixels_HWC = _centred(pixels_HWC, side, axis)
        shape = (*sides, *_DIMENSIONS[preprocess.channel_order])
        yield Image.fromarray(np.ascontiguousarray(pixels_HWC).reshape(shape))


def _centred(pixels_HWC: Array, side: int, axis: int) -> Array:
    """The same centre with another length of one axis; what is new is zero, and cropped away by the model."""
    extra = side - pixels_HWC.shape[axis]
    if extra < 0:
        return np.take(pixels_HWC, range(-extra // 2, -extra // 2 + side), axis=axis)
    before = round(extra / 2)
    return np.pad(pixels_HWC, [(before, extra - before) if each == axis else (0, 0) for each in range(3)])
