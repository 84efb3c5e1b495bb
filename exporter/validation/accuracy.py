"""Accuracy on labelled images: what merging costs, against the dense model in eager PyTorch.

In: labelled images, the captured dense program and the artifacts' runners. Out: an `AccuracyReport`. The images of
all contenders are the same, so that the difference is paired and its interval is that of the mean paired difference.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import fx

from exporter.errors import UsageError
from exporter.models import Preprocess, crop_image, preprocess_image
from exporter.targets import Array, Runner

_CHUNK = 64
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images and the class index of each.

    Attributes:
        labels: class indices.
        open: the image at a position.
    """

    labels: Sequence[int]
    open: Callable[[int], Image.Image]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Percent of images whose label is the first, or among the first five, of n images."""

    top1: float
    top5: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Top-1 of an artifact less that of the dense model, in points, with its 95 % interval."""

    top1: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AccuracyReport:
    """Accuracies by contender (`dense` and every target), differences by target."""

    accuracy: Mapping[str, Accuracy]
    difference: Mapping[str, Difference]


def image_folder(folder: Path) -> LabelledImages:
    """One sub-folder per class, classes numbered in the order of their names.

    Raises:
        UsageError: there is no such folder, or it holds no images in sub-folders.
    """
    if not folder.is_dir():
        raise UsageError(f"data: expected a folder with one sub-folder per class, got {folder}")
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    found = [
        (path, label)
        for label, entry in enumerate(classes)
        for path in sorted(entry.rglob("*"))
        if path.suffix.lower() in _SUFFIXES
    ]
    if not found:
        raise UsageError(f"data: {folder} holds no images in sub-folders (one sub-folder per class)")
    return LabelledImages(
        labels=[label for _, label in found], open=lambda position: _open(found[position][0])
    )


def labelled_arrays(images_BHWC: Array, labels: Array) -> LabelledImages:
    """Images that are in memory already: uint8 (B, H, W, 3) and (B,) class indices."""
    return LabelledImages(
        labels=[int(label) for label in labels], open=lambda position: Image.fromarray(images_BHWC[position])
    )


def measure(
    images: LabelledImages,
    preprocess: Preprocess,
    dense: fx.GraphModule,
    runners: Mapping[str, Runner],
    *,
    as_bytes: bool,
    channels_last: bool,
) -> AccuracyReport:
    """Run every contender over all images.

    Args:
        images: labelled.
        preprocess: of the model.
        dense: takes normalised float32 (B, 3, H, W); the first of its results are logits.
        runners: by target.
        as_bytes: whether the runners take uint8.
        channels_last: whether the runners take NHWC.

    Raises:
        UsageError: a label is beyond the model's classes.
    """
    scores: dict[str, list[Array]] = {name: [] for name in ("dense", *runners)}
    for pixels, normalized in _chunks(images, preprocess):
        with torch.no_grad():
            scores["dense"].append(dense(torch.from_numpy(normalized))[0].float().numpy())
        given = pixels if as_bytes else normalized
        given = np.ascontiguousarray(given.transpose(0, 2, 3, 1)) if channels_last else given
        for target, runner in runners.items():
            scores[target].append(next(iter(runner(given).values())).astype(np.float32))
    logits = {name: np.concatenate(parts) for name, parts in scores.items()}
    labels = np.asarray(images.labels)
    _check_classes(labels, logits["dense"])
    hits = {name: _hits(each, labels) for name, each in logits.items()}
    return AccuracyReport(
        accuracy={name: _accuracy(first, five) for name, (first, five) in hits.items()},
        difference={target: _difference(hits[target][0], hits["dense"][0]) for target in runners},
    )


def _chunks(images: LabelledImages, preprocess: Preprocess) -> Iterator[tuple[Array, Array]]:
    for start in range(0, len(images.labels), _CHUNK):
        stop = min(start + _CHUNK, len(images.labels))
        opened = [images.open(position) for position in range(start, stop)]
        yield (
            np.stack([crop_image(image, preprocess) for image in opened]),
            np.stack([preprocess_image(image, preprocess) for image in opened]),
        )


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise UsageError(f"data: {path} is not a readable image ({error}); remove or repair it") from error


def _check_classes(labels: Array, logits: Array) -> None:
    if logits.ndim != 2 or labels.max() >= logits.shape[1]:
        raise UsageError(
            f"data: expected at most {logits.shape[-1]} classes, as the model has, got {int(labels.max()) + 1}"
        )


def _hits(logits: Array, labels: Array) -> tuple[Array, Array]:
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return order[:, 0] == labels, (order == labels[:, None]).any(axis=1)


def _accuracy(first: Array, five: Array) -> Accuracy:
    return Accuracy(top1=100 * float(first.mean()), top5=100 * float(five.mean()), n=len(first))


def _difference(first: Array, dense_first: Array) -> Difference:
    from scipy.stats import bootstrap

    paired = 100.0 * (first.astype(np.float64) - dense_first.astype(np.float64))
    top1 = float(paired.mean())
    if np.ptp(paired) == 0:
        return Difference(top1=top1, interval=(top1, top1))
    interval = bootstrap(
        (paired,), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return Difference(top1=top1, interval=(float(interval.low), float(interval.high)))
