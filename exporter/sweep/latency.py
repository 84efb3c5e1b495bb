"""Latency per token count, from measured engines.

In: measurements. Out: predictions for the solver. The time of a block is a step function
of its tokens, since kernels work in tiles; multiply-accumulates know nothing of that, a table does.

The model: an engine takes `base + sum over segments of weight * extra(tokens) + merges * merge_ms`, where segment l
lies between the merges of blocks l - 1 and l (as in `Workload`), `extra` rises with the token count from 0 at the
smallest measured one, and `base` is what remains. All engines of a model have the same segments, so that no
measurement can tell a constant from a time that every block takes: `base` holds both, and predictions need no more.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from exporter.errors import UsageError
from exporter.schedule import Workload

Floats = npt.NDArray[np.float64]

STEP_TOLERANCE = 0.01
"""Counts whose block times differ by less than this share of the mean block time are one step."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """An engine and its time.

    Attributes:
        tokens: tokens that enter each block, then the final count, length L + 1.
        latency_ms: of a batch.
        error_ms: standard error of that, for weighing measurements against each other.
    """

    tokens: tuple[int, ...]
    latency_ms: float
    error_ms: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Time per token count; `fit` makes it.

    Attributes:
        counts: measured token counts, rising.
        extra_ms: what a full block takes more at each of these counts than at the smallest one, never falling.
        base_ms: everything else, the blocks' time at the smallest count included.
        merge_ms: of matching and merging in one block.
        weights: how much of a block runs in each segment, length L + 1.
        residual_ms: largest difference of a measurement that was fitted from the table's prediction.
    """

    counts: tuple[int, ...]
    extra_ms: tuple[float, ...]
    base_ms: float
    merge_ms: float
    weights: tuple[float, ...]
    residual_ms: float = field(default=0.0, compare=False)

    def covers(self, tokens: Sequence[int]) -> bool:
        """Whether every count that is executed lies between the smallest and the largest one measured."""
        read = _read(tokens, self.weights)
        return self.counts[0] <= min(read) and max(read) <= self.counts[-1]

    def extra(self, count: int) -> float:
        """Milliseconds that a block takes more than at the smallest count; on a line between measured counts.

        Raises:
            UsageError: the count lies outside of what was measured.
        """
        if not self.counts[0] <= count <= self.counts[-1]:
            raise self._unmeasured(count, count)
        return float(np.interp(count, self.counts, self.extra_ms))

    def predict(self, tokens: Sequence[int]) -> float:
        """Milliseconds of an engine with these tokens (length L + 1).

        Raises:
            UsageError: a count lies outside of what was measured.
        """
        if not self.covers(tokens):
            read = _read(tokens, self.weights)
            raise self._unmeasured(min(read), max(read))
        weighted = zip(self.weights, tokens, strict=True)
        blocks = sum(weight * self.extra(count) for weight, count in weighted if weight > 0)
        return self.base_ms + blocks + _merges(tokens, self.weights) * self.merge_ms

    def block_ms(self, count: int) -> float:
        """Milliseconds of a whole block, if everything that is the same in all engines is shared out over blocks."""
        return self.base_ms / sum(self.weights) + self.extra(count)

    def plateau_top(self, count: int) -> int:
        """The largest count that takes no longer than this one; between two steps or not measured, the count itself."""
        if not self.counts[0] <= count <= self.counts[-1]:  # of a segment that no work is done in
            return count
        here = self.extra(count)
        equal = [each for each, extra in zip(self.counts, self.extra_ms, strict=True) if extra == here]
        return max([count, *equal])

    def _unmeasured(self, fewest: int, most: int) -> UsageError:
        return UsageError(
            f"latency table: expected token counts from {self.counts[0]} to {self.counts[-1]}, which were "
            f"measured, got {fewest} to {most}; measure engines that reach there"
        )


def segment_weights(workload: Workload) -> tuple[float, ...]:
    """How much of a block runs in each segment, by the multiply-accumulates per token of a workload.

    The first segment holds the attention of block 0 and the last one the MLP of the last block, or less where only
    one token is read of it; those between hold a whole block. A model of one block has no whole one between.
    """
    whole = max(workload.per_token[1:-1], default=sum(workload.per_token)) or 1
    return tuple(each / whole for each in workload.per_token)


def fit(
    measurements: Sequence[Measurement],
    counts: Sequence[int],
    weights: Sequence[float],
    step_tolerance: float = STEP_TOLERANCE,
) -> LatencyTable:
    """The table that explains measurements best, in least squares, among those that never fall with the count.

    First every count may be a step (increments by non-negative least squares, which is the monotone fit itself);
    then counts that differ by less than the tolerance become one step, and the steps are fitted once more.

    Args:
        measurements: engines of one model; `table_engines` says which.
        counts: those that get an entry; the measured tokens must lie between the smallest and the largest.
        weights: of the segments, see `segment_weights`.
        step_tolerance: see `STEP_TOLERANCE`; 0 joins only counts that are exactly equal.

    Raises:
        UsageError: the measurements are too few to tell the counts apart, or lie outside of them.
    """
    counts = sorted(set(counts))
    for each in measurements:
        _check_measurement(each, counts, weights)
    single = _fit_steps(measurements, counts, weights, tuple(range(len(counts))))
    block_ms = max(single.base_ms / sum(weights) + float(np.mean(single.extra_ms)), 0.0)
    steps = _joined(single.extra_ms, block_ms * step_tolerance)
    return _fit_steps(measurements, counts, weights, steps)


def _fit_steps(
    measurements: Sequence[Measurement],
    counts: Sequence[int],
    weights: Sequence[float],
    steps: tuple[int, ...],
) -> LatencyTable:
    """Least squares where counts with the same number in `steps` (from 0, rising) take the same time."""
    from scipy.optimize import nnls  # slow to import, and of no use to those who read a table

    design = _design(measurements, counts, weights, steps)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise UsageError(
            f"latency table: {len(measurements)} measurements cannot tell {len(counts)} token counts and the cost "
            "of a merge apart; measure all engines of the table"
        )
    latencies = np.array([each.latency_ms for each in measurements])
    certainty = np.array([1 / each.error_ms for each in measurements])
    solution, _ = nnls(design * certainty[:, None], latencies * certainty)
    levels = [0.0, *accumulate(map(float, solution[2:]))]
    return LatencyTable(
        counts=tuple(counts),
        extra_ms=tuple(levels[step] for step in steps),
        base_ms=float(solution[0]),
        merge_ms=float(solution[1]),
        weights=tuple(weights),
        residual_ms=float(np.abs(design @ solution - latencies).max()),
    )


def _design(
    measurements: Sequence[Measurement],
    counts: Sequence[int],
    weights: Sequence[float],
    steps: tuple[int, ...],
) -> Floats:
    """Rows are measurements; columns are base, merges, and the increment from each step to the next."""
    rows = []
    for each in measurements:
        share = np.zeros(steps[-1] + 1)
        for weight, count in zip(weights, each.tokens, strict=True):
            for position, part in _neighbours(count, counts) if weight > 0 else []:
                share[steps[position]] += weight * part
        at_least = np.cumsum(share[::-1])[
            ::-1
        ]  # weight of the segments that are on this step or a higher one
        rows.append([1.0, float(_merges(each.tokens, weights)), *at_least[1:]])
    return np.array(rows)


def _neighbours(count: int, counts: Sequence[int]) -> list[tuple[int, float]]:
    """The positions that a count lies between, and its share of each."""
    right = bisect_left(counts, count)
    if counts[right] == count:
        return [(right, 1.0)]
    part = (count - counts[right - 1]) / (counts[right] - counts[right - 1])
    return [(right - 1, 1 - part), (right, part)]


def _joined(levels: Sequence[float], tolerance: float) -> tuple[int, ...]:
    """The number of each level's step: neighbours joined, nearest first, while a step spans no more than allowed."""
    steps = [[level] for level in levels]
    while len(steps) > 1:
        spans = [right[-1] - left[0] for left, right in pairwise(steps)]
        nearest = int(np.argmin(spans))
        if spans[nearest] > tolerance:
            break
        steps[nearest : nearest + 2] = [steps[nearest] + steps[nearest + 1]]
    return tuple(number for number, step in enumerate(steps) for _ in step)


def _read(tokens: Sequence[int], weights: Sequence[float]) -> list[int]:
    """The counts of the segments that are executed."""
    return [count for count, weight in zip(tokens, weights, strict=True) if weight > 0]


def _merges(tokens: Sequence[int], weights: Sequence[float]) -> int:
    """Blocks that merge; a merge before a segment of no weight is not executed, since nothing reads its tokens."""
    changes = zip(tokens, tokens[1:], weights[1:], strict=False)
    return sum(before != after and weight > 0 for before, after, weight in changes)


def _check_measurement(each: Measurement, counts: Sequence[int], weights: Sequence[float]) -> None:
    if len(each.tokens) != len(weights):
        raise UsageError(
            f"latency table: expected {len(weights)} token counts, one per segment, got {len(each.tokens)}"
        )
    read = _read(each.tokens, weights)
    if not counts[0] <= min(read) <= max(read) <= counts[-1]:
        raise UsageError(
            f"latency table: a measured engine has {min(read)} to {max(read)} tokens, expected "
            f"{counts[0]} to {counts[-1]}, the counts of the table"
        )
    if not each.latency_ms > 0 or not each.error_ms > 0:
        raise UsageError(
            f"latency table: expected positive times, got {each.latency_ms:g} ms +- {each.error_ms:g} ms"
        )
