"""The inputs of a parity check: a real photo, noise, and one flat colour.

The photo is what engines are for; noise exercises every channel; a flat colour makes all patches equal, so that
every choice among tokens is a tie or close to one.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from PIL import Image

from exporter.models import ExampleInput, Preprocess, preprocess_image
from exporter.models.preprocessing.pixels import crop_image
from exporter.targets import Array

Cases = Mapping[str, Mapping[str, Array]]
"""By case (`photo`, `noise`, `flat`), a batch for every input of the model by name."""

_PHOTOS = ("china.jpg", "flower.jpg")
_SHIFT_PIXELS = 7
_SHORTEST = 3  # tokens of a text
_FLAT = (128, 96, 64, 192)  # bytes of a gray, an RGB and an RGBA image, as many as there are channels


def image_inputs(
    preprocess: Preprocess, *, batch: int, as_bytes: bool, channels_last: bool
) -> Mapping[str, Array]:
    """By case, a batch (B, C, H, W) or (B, H, W, C), preprocessed as the model expects.

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
        case: np.stack([make(image, preprocess) for image in images]) for case, images in pictures.items()
    }
    if channels_last:
        return {case: np.ascontiguousarray(images.transpose(0, 2, 3, 1)) for case, images in batches.items()}
    return batches


def tensor_inputs(examples: Mapping[str, ExampleInput], *, batch: int) -> Cases:
    """Batches for a model that does not say how it takes photos: token ids, or a program's raw tensors.

    With a mask over padding, texts that fill all slots (`noise`), and such that do not (`short`); in a batch of one
    also a text that fills half of them (`half`).

    Args:
        examples: of every input.
        batch: rows in each.
    """
    generator = np.random.default_rng(0)
    noise = {name: _noise(example, batch, generator) for name, example in examples.items()}
    if any(example.is_mask for example in examples.values()):
        slots = min(example.shape[0] for example in examples.values() if example.is_mask)
        others = generator.integers(_SHORTEST, slots + 1, batch - 1)
        lengths = {"short": [_SHORTEST, *others]} | ({"half": [slots // 2]} if batch == 1 else {})
        return {"noise": noise} | {name: noise | _masks(examples, each) for name, each in lengths.items()}
    if all(example.vocabulary is not None for example in examples.values()):
        return {"noise": noise}
    flat = {
        name: each if each.dtype == np.int64 else np.full_like(each, 0.25) for name, each in noise.items()
    }
    return {"noise": noise, "flat": flat}


def step_inputs(examples: Mapping[str, ExampleInput], *, batch: int, steps: Sequence[int]) -> Cases:
    """Batches for a denoiser: by step, random latents and conditions; and once, flat conditions.

    Latents are never flat: thousands of cells would tie, and an engine that gives its matches rounds them otherwise
    than the same engine without.

    Args:
        examples: of every input.
        batch: rows in each.
        steps: of the scheduler.
    """
    generator = np.random.default_rng(0)
    cases = {f"step {step}": _at_step(examples, batch, step, generator) for step in steps}
    if not any(map(_is_condition, examples.values())):
        return cases
    middle = cases[f"step {steps[len(steps) // 2]}"]
    flat = {
        name: np.full_like(each, 0.25) if _is_condition(examples[name]) else each
        for name, each in middle.items()
    }
    return {**cases, "flat": flat}


def _is_condition(example: ExampleInput) -> bool:
    """Whether an input is numbers about the image, and not the image itself, a step, or a class."""
    return example.vocabulary is None and example.steps is None and len(example.shape) < 3


def _at_step(
    examples: Mapping[str, ExampleInput], batch: int, step: int, generator: np.random.Generator
) -> dict[str, Array]:
    noise = {name: _noise(example, batch, generator) for name, example in examples.items()}
    return {name: np.full_like(each, step) if examples[name].steps else each for name, each in noise.items()}


def _noise(example: ExampleInput, batch: int, generator: np.random.Generator) -> Array:
    shape = (batch, *example.shape)
    if example.vocabulary is None:
        return generator.standard_normal(shape, dtype=np.float32)
    return generator.integers(1, example.vocabulary, shape, dtype=np.int64)


def _masks(examples: Mapping[str, ExampleInput], lengths: Sequence[int]) -> dict[str, Array]:
    """Masks of texts of these lengths. The shortest has a class token, one token, and an end."""
    masks = {name: example.shape[0] for name, example in examples.items() if example.is_mask}
    return {
        name: (np.arange(count) < np.array(lengths)[:, None]).astype(np.int64)
        for name, count in masks.items()
    }


def _opened(images_BHWC: Array) -> list[Image.Image]:
    return [Image.fromarray(each if each.shape[2] > 1 else each[:, :, 0]) for each in images_BHWC]


def _photos(count: int) -> list[Image.Image]:
    """Photos that ship with scikit-learn; a batch longer than there are photos shifts them sideways.

    The files are opened where they are: importing the library for them would take longer than the check.
    """
    folder = distribution("scikit-learn").locate_file("sklearn/datasets/images")
    photos = [np.asarray(Image.open(Path(str(folder)) / name).convert("RGB")) for name in _PHOTOS]
    return [
        Image.fromarray(np.roll(photos[row % len(photos)], row // len(photos) * _SHIFT_PIXELS, axis=1))
        for row in range(count)
    ]
