"""The points worth having: no other one is at least as good and at least as fast, and better in one of them.

In: the results of `drive`. Out: names, which the report plots.
"""

from collections.abc import Sequence
from itertools import groupby
from math import isnan

from exporter.sweep.record import PointResult, QualityMeasure


def pareto_front(qualities: Sequence[float | None], throughputs: Sequence[float | None]) -> tuple[int, ...]:
    """Which entries are not dominated, in rising order of throughput (then of position).

    An entry dominates another one if it is at least as good in both and better in one. Equal entries therefore stand
    or fall together, and an entry that lacks a figure (None or NaN) neither dominates nor is on the front.

    Args:
        qualities: one per entry, the larger the better.
        throughputs: one per entry, the larger the better.

    Raises:
        ValueError: the lengths differ.
    """
    entries = [
        (throughput, quality, position)
        for position, (quality, throughput) in enumerate(zip(qualities, throughputs, strict=True))
        if quality is not None and throughput is not None and not isnan(quality) and not isnan(throughput)
    ]
    front: list[tuple[float, int]] = []
    best = float("-inf")
    for throughput, group in groupby(sorted(entries, reverse=True), key=lambda entry: entry[0]):
        equally_fast = list(group)
        top = equally_fast[0][1]
        if top > best or not front:
            front += [(throughput, position) for _, quality, position in equally_fast if quality == top]
            best = top
    return tuple(position for _, position in sorted(front))


def front_names(results: Sequence[PointResult], measure: QualityMeasure) -> tuple[str, ...]:
    """Names of the finished points on the front of one quality measure against images per second."""
    done = [result for result in results if result.status == "done"]
    front = pareto_front(
        [result.quality.of(measure) for result in done], [result.images_per_s for result in done]
    )
    return tuple(done[position].name for position in front)


def quality_measure(results: Sequence[PointResult]) -> QualityMeasure | None:
    """What all finished points can be compared by: accuracy, else agreement, else cosine; None if nothing."""
    done = [result.quality for result in results if result.status == "done"]
    measures: tuple[QualityMeasure, ...] = ("top1", "top1_agreement", "cosine_mean")
    return next(
        (each for each in measures if done and all(quality.of(each) is not None for quality in done)), None
    )
