"""Cut images into the batches that an engine takes, and put its answers together again."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Union

import numpy as np

from exporter.errors import UsageError
from exporter.targets.target import Array, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor


def run_in_batches(
    images: Array, input: TensorSpec, outputs: Sequence[TensorSpec], run: Callable[[Array], Sequence[Array]]
) -> dict[str, Array]:
    """Outputs by name, one row per image.

    Args:
        images: (n, ...), any n from 1.
        input: whose first axis is the engine's batch, or a word where it takes any.
        outputs: names, in the order of the engine's results; further results are left out.
        run: one batch, C-contiguous.

    Raises:
        UsageError: images of another shape or dtype than the engine takes, or none at all.
    """
    results = [run(batch) for batch in split_images(images, input)]
    return join_results(results, outputs, len(images))


def split_images(images: Array, input: TensorSpec) -> list[Array]:
    """Batches of the engine's size, each C-contiguous; the last one is padded with its last row.

    Raises:
        UsageError: images of another shape or dtype than the engine takes, or none at all.
    """
    check_images(images, input)
    batch = input.shape[0]
    size = len(images) if isinstance(batch, str) else batch
    return [padded(images[start : start + size], size) for start in range(0, len(images), size)]


def join_results(
    results: Sequence[Sequence[Array]], outputs: Sequence[TensorSpec], count: int
) -> dict[str, Array]:
    """The first `count` rows of every batch's results, by name."""
    columns = list(zip(*results, strict=True))
    return {spec.name: np.concatenate(columns[place])[:count] for place, spec in enumerate(outputs)}


def check_images(images: Union[Array, "Tensor"], input: TensorSpec) -> None:
    """Refuse images that the engine would misread.

    Raises:
        UsageError: another shape or dtype, or no images.
    """
    expected, got = input.shape[1:], tuple(images.shape)
    if len(got) != len(expected) + 1 or got[1:] != expected or got[0] == 0:
        shape = "x".join(map(str, expected))
        raise UsageError(f"{input.name}: expected at least one row of {shape}, got an array {got}")
    dtype = str(images.dtype).removeprefix("torch.")
    if dtype != input.dtype:
        raise UsageError(f"{input.name}: expected {input.dtype}, got {dtype}")


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


def padded(images: Array, size: int) -> Array:
    """`size` rows, C-contiguous: the images, and the last one again as often as needed."""
    missing = size - len(images)
    full = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
    return np.ascontiguousarray(full)
