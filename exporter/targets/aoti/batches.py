"""Cut images into the batches that an engine takes, and put its answers together again."""

from collections.abc import Callable, Sequence

import numpy as np

from exporter.errors import UsageError
from exporter.targets.target import Array, TensorSpec


def run_in_batches(
    images: Array, input: TensorSpec, outputs: Sequence[TensorSpec], run: Callable[[Array], Sequence[Array]]
) -> dict[str, Array]:
    """Outputs by name, one row per image; the last batch is padded with its last row, and cut off again.

    Args:
        images: (n, ...), any n from 1.
        input: whose first axis is the engine's batch, or a word where it takes any.
        outputs: names, in the order of the engine's results; further results are left out.
        run: one batch, C-contiguous.

    Raises:
        UsageError: images of another shape or dtype than the engine takes, or none at all.
    """
    check_images(images, input)
    batch = input.shape[0]
    size = len(images) if isinstance(batch, str) else batch
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        parts.append([result[: len(part)] for result in run(_padded(part, size))])
    return {spec.name: np.concatenate([part[place] for part in parts]) for place, spec in enumerate(outputs)}


def check_images(images: Array, input: TensorSpec) -> None:
    """Refuse images that the engine would misread.

    Raises:
        UsageError: another shape or dtype, or no images.
    """
    expected = input.shape[1:]
    if images.ndim != len(expected) + 1 or images.shape[1:] != expected or len(images) == 0:
        shape = "x".join(map(str, expected))
        raise UsageError(f"{input.name}: expected at least one row of {shape}, got an array {images.shape}")
    if images.dtype != np.dtype(input.dtype):
        raise UsageError(f"{input.name}: expected {input.dtype}, got {images.dtype}")


def one_batch(images: Array, input: TensorSpec) -> Array:
    """Images that are one batch of the engine's own size, C-contiguous.

    Raises:
        UsageError: another number of images, shape or dtype.
    """
    check_images(images, input)
    batch = input.shape[0]
    if isinstance(batch, int) and len(images) != batch:
        raise UsageError(f"{input.name}: expected a batch of {batch}, got {len(images)} images")
    return np.ascontiguousarray(images)


def _padded(images: Array, size: int) -> Array:
    missing = size - len(images)
    full = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
    return np.ascontiguousarray(full)
