"""Time the engines of a ladder alone and together, over images of the user's: which engine they need decides.

In: compiled engines and images. Out: images per second of each, and how much faster the ladder is than its last engine.
It is one process, so that the interval does not hold what differs between processes; `bench` has that.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from exporter.ladder import Cascade, images_at_once
from exporter.pipeline.compile import Compiled
from exporter.pipeline.contenders import as_input
from exporter.records import LadderTiming, Ratio
from exporter.targets import Array
from exporter.validation import ImageSet, decode

_ROUNDS = 7
_CALL_S = 0.5
"""A call of the last engine takes about this long, where there are enough images."""

_MOST_IMAGES = 512


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Times of a ladder and of its engines alone.

    Attributes:
        timing: of the ladder.
        images_per_s: of each engine alone, cheapest first.
    """

    timing: LadderTiming
    images_per_s: tuple[float, ...]


def time_ladder(cascade: Cascade, last: Compiled, images: ImageSet) -> Timed:
    """Call the ladder and each of its engines in turns, every time with the same images.

    Args:
        cascade: to time.
        last: its last engine, whose recipe says how images are taken.
        images: evenly spaced ones are taken, since folders are sorted by class.
    """
    slowest = cascade.runners[-1]
    pixels_BCHW = _pixels(images, last, min(len(images.names), _MOST_IMAGES))
    preprocess = last.planned.model.preprocess
    assert preprocess is not None
    inputs = as_input(last.recipe, pixels_BCHW, preprocess)
    batch = last.recipe.batch
    seconds = min(_seconds(lambda: slowest(inputs[:batch])) for _ in range(3)) / batch
    count = min(len(inputs), max(images_at_once(batch), round(_CALL_S / seconds)))
    given = inputs[: max(count - count % batch, min(batch, len(inputs)))]
    calls: dict[int, Callable[[], object]] = {
        place: lambda runner=runner: runner(given)  # type: ignore[misc]
        for place, runner in enumerate([cascade, *cascade.runners])
    }
    times_CR = _in_turns(calls)
    logs_R = np.log(times_CR[-1]) - np.log(times_CR[0])
    rates = tuple(float(len(given) / each) for each in np.median(times_CR, axis=1))
    timing = LadderTiming(images=len(given), images_per_s=rates[0], speedup=_ratio(logs_R))
    return Timed(timing=timing, images_per_s=rates[1:])


def _pixels(images: ImageSet, last: Compiled, most: int) -> Array:
    positions = np.linspace(0, len(images.names) - 1, most).astype(int).tolist()
    assert last.planned.model.preprocess is not None
    parts = decode(images, last.planned.model.preprocess, positions=positions, chunk=64, workers=0)
    return np.concatenate([part.pixels_BCHW for part in parts])


def _in_turns(calls: Mapping[int, Callable[[], object]]) -> Array:
    """Seconds of every call in every round, in an order that is shuffled each time; the first round is not timed."""
    shuffle, times_CR = random.Random(0), np.zeros((len(calls), _ROUNDS))
    for number in range(-1, _ROUNDS):
        for place in shuffle.sample(sorted(calls), len(calls)):
            seconds = _seconds(calls[place])
            if number >= 0:
                times_CR[place, number] = seconds
    return times_CR


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _ratio(logs_R: Array) -> Ratio:
    """The geometric mean of ratios of rounds, with Student's interval."""
    from scipy.stats import t

    centre, error = float(logs_R.mean()), float(logs_R.std(ddof=1) / len(logs_R) ** 0.5)
    half = float(t.ppf(0.975, len(logs_R) - 1)) * error
    low, value, high = np.exp([centre - half, centre, centre + half]).tolist()
    return Ratio(value=value, interval=(low, high))
