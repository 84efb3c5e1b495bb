"""What parity is shown: a real photo, noise, and one flat colour.

The photo is what engines are for; noise exercises every channel; a flat colour makes all patches equal, so that
every choice among tokens is a tie or close to one.
"""

from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from PIL import Image

from exporter.models import ExampleInput, Preprocess, preprocess_image
from exporter.models.preprocessing.preprocess import crop_image
from exporter.targets import Array

_PHOTOS = ("china.jpg", "flower.jpg")
_SHIFT_PIXELS = 7
_FLAT = (128, 96, 64, 192)  # bytes of a gray, an RGB and an RGBA image, as many as there are channels


def image_inputs(
    preprocess: Preprocess, *, batch: int, as_bytes: bool, channels_last: bool
) -> Mapping[str, Array]:
    """Named batches (B, C, H, W) or (B, H, W, C), preprocessed as the model expects.

    Args:
        preprocess: of the model.
        batch: images in each.
        as_bytes: uint8 instead of normalised float32.
        channels_last: NHWC.
    """
    channels, *size = preprocess.input_shape
    shape = (batch, *size, channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pictures = {
        "photo": _photos(batch),
        "noise": _opened(noise),
        "flat": _opened(np.full(shape, _FLAT[:channels], dtype=np.uint8)),
    }
    make = crop_image if as_bytes else preprocess_image
    batches = {
        name: np.stack([make(image, preprocess) for image in images]) for name, images in pictures.items()
    }
    if channels_last:
        return {name: np.ascontiguousarray(images.transpose(0, 2, 3, 1)) for name, images in batches.items()}
    return batches


def tensor_inputs(example: ExampleInput, *, batch: int) -> Mapping[str, Array]:
    """Named batches for a model that does not say how it takes photos: token ids, or a program's raw tensors."""
    generator = np.random.default_rng(0)
    if example.vocabulary is not None:
        shape = (batch, *example.shape)
        return {"noise": generator.integers(1, example.vocabulary, shape, dtype=np.int64)}
    noise = generator.standard_normal((batch, *example.shape), dtype=np.float32)
    return {"noise": noise, "flat": np.full_like(noise, 0.25)}


def _opened(images_BHWC: Array) -> list[Image.Image]:
    return [Image.fromarray(each if each.shape[2] > 1 else each[:, :, 0]) for each in images_BHWC]


def _photos(count: int) -> list[Image.Image]:
    """Photos that ship with scikit-learn; a batch longer than there are photos shifts them sideways.

    The files are opened where they are: importing the library for them would take longer than the proof.
    """
    folder = distribution("scikit-learn").locate_file("sklearn/datasets/images")
    photos = [np.asarray(Image.open(Path(str(folder)) / name).convert("RGB")) for name in _PHOTOS]
    return [
        Image.fromarray(np.roll(photos[row % len(photos)], row // len(photos) * _SHIFT_PIXELS, axis=1))
        for row in range(count)
    ]
