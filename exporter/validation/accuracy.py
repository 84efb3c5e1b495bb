"""Accuracy from logits and labels: what merging costs in top-1 and top-5, against the dense model, image by image.

In: logits, chunk by chunk, and labels; two booleans per image and contender are kept (`Hits`). Out: an
`AccuracyReport`. All contenders see the same images, so the difference is paired: its interval comes from resampling
images, its p-value from the images that only one of the two contenders has right.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.errors import InternalError, UsageError
from exporter.records import Accuracy, Difference
from exporter.targets import Array

RESAMPLES = 9999
"""Bootstrap resamples of the images."""

RESAMPLED_AT_ONCE = 2**22  # elements: about 64 MB with their indices, however many images there are


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """Whether each image's label is the first of the classes, or among the first five.

    Attributes:
        first: (n,).
        five: (n,).
    """

    first: npt.NDArray[np.bool_]
    five: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class AccuracyReport:
    """Accuracies by contender, and differences by contender other than the baseline."""

    accuracy: Mapping[str, Accuracy]
    difference: Mapping[str, Difference]


def hits(logits_BC: Array, labels_B: Array) -> Hits:
    """Judge a chunk of images; among equal logits the lower class index is first.

    A row without a finite maximum (not-a-number, overflow) is no answer: a miss, even of the first five.

    Args:
        logits_BC: floats; cosine similarities to class embeddings do as well.
        labels_B: integer class indices.

    Raises:
        UsageError: no logits for these labels, or a label that is none of the model's classes.
    """
    if logits_BC.ndim != 2 or len(logits_BC) != len(labels_B):
        raise UsageError(
            f"accuracy: expected logits (images, classes) for {len(labels_B)} labels, got {logits_BC.shape}; "
            "only a model with a classification head, or class names, has an accuracy"
        )
    classes = logits_BC.shape[1]
    strays = labels_B[(labels_B < 0) | (labels_B >= classes)]
    if len(strays):
        raise UsageError(
            f"data: expected labels 0 to {classes - 1}, as the model has {classes} classes, got {int(strays[0])}; "
            "use the model's own label order"
        )
    own_B1 = np.take_along_axis(logits_BC, labels_B[:, None], axis=1)
    lower_BC = np.arange(classes) < labels_B[:, None]
    rank_B = ((logits_BC > own_B1) | ((logits_BC == own_B1) & lower_BC)).sum(axis=1)
    answered_B = np.isfinite(logits_BC.max(axis=1))
    return Hits(first=answered_B & (rank_B == 0), five=answered_B & (rank_B < 5))


def join_hits(parts: Iterable[Hits]) -> Hits:
    """The hits of all images out of those of their chunks, in order.

    Raises:
        UsageError: there are none.
    """
    chunks = list(parts)
    if not chunks:
        raise UsageError("accuracy: expected at least one readable image, got none")
    return Hits(
        first=np.concatenate([each.first for each in chunks]),
        five=np.concatenate([each.five for each in chunks]),
    )


def report_accuracy(hits: Mapping[str, Hits], *, baseline: str = "dense") -> AccuracyReport:
    """Accuracy of every contender, and its paired difference to the baseline.

    Args:
        hits: by contender, over the same images in the same order.
        baseline: one of the contenders.

    Raises:
        UsageError: no images.
    """
    counts = {name: len(each.first) for name, each in hits.items()}
    if baseline not in hits or len(set(counts.values())) != 1:
        raise InternalError(
            f"accuracy: expected equal numbers of images, {baseline}'s among them, got {counts}"
        )
    if counts[baseline] == 0:
        raise UsageError("accuracy: expected at least one readable image, got none")
    return AccuracyReport(
        accuracy={name: _accuracy(each) for name, each in hits.items()},
        difference={
            name: _difference(each.first, hits[baseline].first)
            for name, each in hits.items()
            if name != baseline
        },
    )


def paired_interval(differences_n: Array, *, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % interval of the mean of paired differences: percentile bootstrap over the pairs, always the same one.

    Where all differences are equal the interval has no width: it says that these images show none, not that no other
    image would. Memory does not grow with n.

    Args:
        differences_n: one per image or query, in the unit of the interval.
        resamples: how often the pairs are drawn again.
    """
    from scipy.stats import bootstrap

    values_n = differences_n.astype(np.float64)
    if np.ptp(values_n) == 0:
        return float(values_n[0]), float(values_n[0])
    interval = bootstrap(
        (values_n,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, RESAMPLED_AT_ONCE // len(values_n)),
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _accuracy(hits: Hits) -> Accuracy:
    return Accuracy(
        top1=100 * float(hits.first.mean()), top5=100 * float(hits.five.mean()), n=len(hits.first)
    )


def _difference(first: Array, baseline_first: Array) -> Difference:
    points = 100.0 * (first.astype(np.float64) - baseline_first.astype(np.float64))
    return Difference(
        top1=float(points.mean()),
        interval=paired_interval(points),
        p_value=mcnemar(int((points < 0).sum()), int((points > 0).sum())),
    )


def mcnemar(lost: int, gained: int) -> float:
    """The p-value of McNemar (1947), exact.

    Each image that only one of the two has right is a coin toss, if neither is better.
    """
    from scipy.stats import binomtest

    if lost + gained == 0:
        return 1.0
    return float(binomtest(lost, lost + gained, 0.5).pvalue)
