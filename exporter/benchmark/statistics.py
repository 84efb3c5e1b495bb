"""Samples to numbers: quantiles of one contender, ratios of two with an interval, merge efficiency.

In: samples by launch, round and call. Out: figures that say how far they can be trusted. No clocks and no processes
here, so that simulated samples with a known truth can check all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.records import Ratio

CONFIDENCE = 0.95
RESAMPLES = 4000

RawSamples = Sequence[Sequence[Sequence[float]]]
"""Milliseconds by launch, round and call; every launch has as many rounds."""

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One contender's calls. Quantiles are linear between the two nearest samples.

    Attributes:
        median_ms: half of the calls took less.
        p90_ms: 90 % took less.
        p99_ms: 99 % took less.
        iqr_ms: between the first and the third quartile.
        mean_ms: all time over all calls; what timm calls the step time.
        images_per_s: throughput, images over time, of the median round.
    """

    median_ms: float
    p90_ms: float
    p99_ms: float
    iqr_ms: float
    mean_ms: float
    images_per_s: float


def summarize(samples: RawSamples, batch: int) -> Summary:
    """Figures of one contender.

    Args:
        samples: of all its calls; at least one per round.
        batch: images per call.
    """
    samples_ms = [each for rounds in samples for calls in rounds for each in calls]
    first, median, third, p90, p99 = np.quantile(samples_ms, [0.25, 0.5, 0.75, 0.9, 0.99]).tolist()
    return Summary(
        median_ms=median,
        p90_ms=p90,
        p99_ms=p99,
        iqr_ms=third - first,
        mean_ms=float(np.mean(samples_ms)),
        images_per_s=batch * 1000 / float(np.median(_mean_calls(samples))),
    )


def ratio(samples: RawSamples, baseline: RawSamples, seed: int = 0) -> Ratio:
    """How many times as fast a contender is as a baseline that ran beside it; above 1 is faster.

    Each round gives one paired ratio, that of the throughputs; what slows the machine down for a while slows down
    both. The value is the median of all of them. Within a round it is throughput, not the median call, that compares:
    where other processes take their slices of a core, a call shorter than a slice mostly escapes and a longer one
    never does, so that of two programs of which one does exactly twice the work of the other, the median calls were
    1.4 to 8 times apart, and the throughputs 1.9 to 2.1. Rounds last equally long, so a stall costs both the same
    share; the median over rounds then drops what hit one round alone.

    The interval is the union of two. A two-level bootstrap (launches first, then rounds within them) follows skewed
    samples, but is too narrow for few launches: in simulations its 95 % hold the truth in 90 of 100 races of five
    launches, and in 82 of three. A t interval over the launches' median log ratios keeps 94 to 99, but its centre
    follows a bad launch. The union held the truth in 95 to 99 of 100, also with bursts of load and slow processes.

    Args:
        samples: of the contender; at least two launches.
        baseline: of the same launches and rounds.
        seed: of the resampling.
    """
    logs_LR = np.log(_mean_calls(baseline)) - np.log(_mean_calls(samples))
    value = float(np.median(logs_LR))
    low, high = zip(_bootstrap(logs_LR, seed), _t_interval(logs_LR), strict=True)
    return Ratio(
        value=float(np.exp(value)),
        interval=(float(np.exp(min(*low, value))), float(np.exp(max(*high, value)))),
    )


def efficiency(speedup: Ratio, macs_ratio: float) -> Ratio:
    """Merge efficiency: a measured speedup over the one that the arithmetic promises; 1 if merging costs nothing.

    Args:
        speedup: of the reduced over the dense engine.
        macs_ratio: executed multiply-accumulates of the dense engine over those of the reduced one.
    """
    low, high = speedup.interval
    return Ratio(value=speedup.value / macs_ratio, interval=(low / macs_ratio, high / macs_ratio))


def _mean_calls(samples: RawSamples) -> _Array:
    """Milliseconds per call of each round: (launches, rounds)."""
    return np.array([[np.mean(calls) for calls in rounds] for rounds in samples], dtype=np.float64)


def _bootstrap(logs_LR: _Array, seed: int) -> tuple[float, float]:
    """Percentile interval of the median, resampling launches, then rounds."""
    launches, rounds = logs_LR.shape
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, launches, (RESAMPLES, launches, 1))
    within = generator.integers(0, rounds, (RESAMPLES, launches, rounds))
    medians = np.median(logs_LR[chosen, within].reshape(RESAMPLES, -1), axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians, [tail, 1 - tail]).tolist()
    return low, high


def _t_interval(logs_LR: _Array) -> tuple[float, float]:
    """Student's interval of the mean of the launches' medians."""
    from scipy import stats  # late: workers import this package and must stay small

    medians_L = np.median(logs_LR, axis=1)
    error = float(medians_L.std(ddof=1)) / len(medians_L) ** 0.5
    quantile: Any = stats.t.ppf((1 + CONFIDENCE) / 2, len(medians_L) - 1)
    centre = float(medians_L.mean())
    return centre - float(quantile) * error, centre + float(quantile) * error
