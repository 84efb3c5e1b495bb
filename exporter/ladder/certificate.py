"""How much may be kept of the answers of cheaper engines: a threshold that is certified, not fitted.

In: for images without labels, how sure each engine is of its answer, and whether it is the dense model's. Out: the
loosest threshold whose disagreement is certain to be small enough on images like these.

The threshold is walked from strict (nothing is kept but the last engine's answers) to loose, and the walk stops at the
first one whose one-sided Clopper-Pearson bound is above the limit. Testing in an order that is fixed beforehand and
stopping at the first failure needs no correction for the number of tests (fixed-sequence testing, Maurer, Hothorn and
Lehmacher, 1995; for thresholds: Angelopoulos et al., Learn then Test, 2021). Every threshold is covered, not only the
images' own values: between two of them nothing changes.

Shapes: K engines, cheapest first; N images.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from exporter.signature import Array

CONFIDENCE = 0.95
"""Of every bound."""


@dataclass(frozen=True, kw_only=True)
class Certified:
    """A threshold, and the images on which the answers that it gives are not the dense model's.

    Attributes:
        threshold: least value at which an answer is kept.
        disagreements: such images.
        bound: upper bound of their share.
    """

    threshold: float
    disagreements: int
    bound: float


def needed_images(agreement: float) -> int:
    """The fewest images that can certify an agreement, a share below 1; they do if the answers agree on all of them."""
    needed = math.ceil(math.log(1 - CONFIDENCE) / math.log(agreement))
    return needed if upper_bound(0, needed) <= 1 - agreement else needed + 1


def upper_bound(disagreements: int, images: int) -> float:
    """The largest share of disagreements that so few of so many images do not rule out (Clopper and Pearson, 1934)."""
    return float(_upper_bounds(np.array([disagreements]), images)[0])


def certify(values_KN: Array, differs_KN: Array, agreement: float) -> Certified | None:
    """The loosest threshold that a walk from strict to loose certifies; None where not even the strictest is.

    An image is answered by the first engine whose value is at or above the threshold, or by the last engine. Where no
    value may be kept the threshold is infinite.

    Args:
        values_KN: how sure each engine but the last is of its answer, (K - 1, N).
        differs_KN: whether each engine's answer is not the dense model's, bool (K, N).
        agreement: share of images on which the answers have to be the dense model's.
    """
    reached_KN = np.maximum.accumulate(values_KN, axis=0)  # up to it, this engine or a cheaper one keeps it
    order = np.argsort(-reached_KN, axis=None, kind="stable")
    values = reached_KN.reshape(-1)[order]
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True) & np.isfinite(values))
    walk = _walk(_changes(differs_KN).reshape(-1)[order], ends, differs_KN[-1], agreement)
    if walk is None:
        return None
    tested = np.concatenate(([math.inf], values[ends]))[walk.passed : walk.passed + 2]
    threshold = float(tested.mean())  # between an image's value and the next, so that rounding moves no image
    return Certified(threshold=threshold, disagreements=walk.disagreements, bound=walk.bound)


def fit_cost(values_KN: Array, differs_KN: Array, costs_K: Array, cost: float) -> Certified:
    """The threshold whose mean cost on these images is nearest to a given one; of what it agrees, a bound.

    What the engines answer does not choose it, only how sure they are; the bound takes it as given.

    Args:
        values_KN: as in `certify`.
        differs_KN: as in `certify`.
        costs_K: of running each engine on an image.
        cost: to come near to; an image costs what all engines cost that it ran on.
    """
    total_K = np.cumsum(costs_K)
    own = np.unique(values_KN[np.isfinite(values_KN)])
    thresholds = [*own.tolist(), math.inf]

    def mean_cost(threshold: float) -> float:
        return float(total_K[rung_of(values_KN, threshold)].mean())

    above = min(bisect_left(thresholds, cost, key=mean_cost), len(own))
    near = range(max(above - 1, 0), above + 1)
    place = min(near, key=lambda each: abs(mean_cost(thresholds[each]) - cost))
    threshold = (thresholds[max(place - 1, 0)] + thresholds[place]) / 2  # as in `certify`
    wrong = int(differs_KN[rung_of(values_KN, threshold), np.arange(differs_KN.shape[1])].sum())
    return Certified(threshold=threshold, disagreements=wrong, bound=upper_bound(wrong, differs_KN.shape[1]))


def certify_by_size(sizes_N: Array, differs_KN: Array, agreement: float) -> Array | None:
    """Which engine answers each image where its size alone decides, int64 (N,); None where nothing is certified.

    The walk has one order for any number of engines: the smallest images first, one after another, from the last
    engine to the one before it; and when all are there, from that one to the next cheaper one.

    Args:
        sizes_N: of the images' files, such as bytes per pixel.
        differs_KN: as in `certify`.
        agreement: as in `certify`.
    """
    engines, images = differs_KN.shape
    order_N = np.argsort(sizes_N, kind="stable")
    sizes = sizes_N[order_N]
    ends_N = np.append(sizes[1:] != sizes[:-1], True)
    steps = _changes(differs_KN)[::-1, order_N].reshape(-1)
    ends = np.flatnonzero(np.tile(ends_N, engines - 1))
    walk = _walk(steps, ends, differs_KN[-1], agreement)
    if walk is None:
        return None
    moved = int(ends[walk.passed - 1]) + 1 if walk.passed else 0
    rung_N = np.full(images, engines - 1 - moved // images)
    rung_N[order_N[: moved % images]] -= 1
    return rung_N


def rung_of(values_KN: Array, threshold: float) -> Array:
    """Place of the engine that answers each image, int64 (N,); arguments as in `certify`."""
    keeps_KN = np.concatenate((values_KN >= threshold, np.full((1, values_KN.shape[1]), True)))
    place_N: Array = keeps_KN.argmax(axis=0)
    return place_N


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """Steps that passed, and what the last of them was tested with."""

    passed: int
    disagreements: int
    bound: float


def _changes(differs_KN: Array) -> Array:
    """What an image's move to an engine from the next one changes in the number of disagreements, (K - 1, N)."""
    return differs_KN[:-1].astype(np.int64) - differs_KN[1:]


def _walk(changes: Array, ends: Array, differs_N: Array, agreement: float) -> _Walk | None:
    """Test one step after another until one fails.

    Args:
        changes: of the number of disagreements, image by image in the order of the walk.
        ends: of the steps, places in `changes`: images of equal value move together.
        differs_N: where the walk starts.
        agreement: asked for.

    Returns:
        None where even the start fails.
    """
    start = int(differs_N.sum())
    disagreements = np.concatenate(([start], start + np.cumsum(changes)[ends]))
    bounds = _upper_bounds(disagreements, len(differs_N))
    passing = int(np.argmin(np.append(bounds <= 1 - agreement, False)))
    if not passing:
        return None
    last = passing - 1
    return _Walk(passed=last, disagreements=int(disagreements[last]), bound=float(bounds[last]))


def _upper_bounds(disagreements: Array, images: int) -> Array:
    from scipy.stats import beta  # late: what runs a ladder needs no SciPy

    some = np.minimum(disagreements, images - 1)
    found: Array = beta.ppf(CONFIDENCE, some + 1, images - some)
    return np.where(disagreements == images, 1.0, found)
