"""Warnings about a race's figures, each as one line that starts with a name.

In: measurements and ratios. Out: warnings for `bench.json` and for the terminal. Every threshold is a constant here.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from exporter.benchmark.measurement import Launch, Measurement
from exporter.records import RatioRecord

WIDEST_INTERVAL = 0.2
"""A ratio is doubtful if its interval is wider than this share of its value."""

OUTLIER = 1.5
"""A call that took this many times the median is an outlier."""

MOST_OUTLIERS = 0.05
"""More outliers than this share of all calls: something else was running, or the machine changed its clock."""

LAUNCH_SPREAD = 0.1
"""Medians of launches further apart than this share of the smallest: processes of the same program differ."""

MOST_OTHER_LOAD = 0.1
"""Processes of others on more than this share of the cores in use."""


def cautions_about(measurement: Measurement, cores: int) -> Iterator[str]:
    """Warnings about one contender's own samples.

    Args:
        measurement: of the contender.
        cores: how many it was pinned to.
    """
    label, launches = measurement.contender.label, measurement.launches
    yield from (f"{note} ({label})" for note in measurement.notes)
    yield from _unsettled(label, launches)
    yield from _outliers(label, measurement.samples_ms)
    yield from _launches_differ(label, launches)
    if any(launch.peak_since == "start" for launch in launches):
        yield f"memory-with-loading: {label}: the kernel keeps one high-water mark; the peak holds loading as well"
    busy = float(np.mean([launch.other_load for launch in launches])) / cores
    if busy > MOST_OTHER_LOAD:
        yield f"other-load: {label}: other processes kept {busy:.0%} of its {cores} cores busy while it was timed"


def cautions_about_ratio(ratio: RatioRecord) -> Iterator[str]:
    """A warning about a ratio that the spread makes meaningless."""
    if ratio.relative_width > WIDEST_INTERVAL:
        low, high = ratio.interval
        yield (
            f"wide-interval: {ratio.name}, batch {ratio.batch}: {ratio.value:.2f} lies somewhere from "
            f"{low:.2f} to {high:.2f}; race again with more launches, or on a quieter machine"
        )


def _unsettled(label: str, launches: Iterable[Launch]) -> Iterator[str]:
    settled = [launch.settled for launch in launches]
    if not all(settled):
        yield (
            f"unsettled: {label}: still changing when its warm-up ended in {settled.count(False)} of "
            f"{len(settled)} launches; give it a longer warm-up"
        )


def _outliers(label: str, samples_ms: tuple[float, ...]) -> Iterator[str]:
    share = float(np.mean(np.array(samples_ms) > OUTLIER * np.median(samples_ms)))
    if share > MOST_OUTLIERS:
        yield f"slow-outliers: {label}: {share:.0%} of its calls took more than {OUTLIER:g} times the median"


def _launches_differ(label: str, launches: Iterable[Launch]) -> Iterator[str]:
    medians = [float(np.median([each for one in launch.rounds for each in one])) for launch in launches]
    spread = max(medians) / min(medians) - 1
    if spread > LAUNCH_SPREAD:
        yield (
            f"launches-differ: {label}: its processes' medians lie {spread:.0%} apart, from {min(medians):.3g} to "
            f"{max(medians):.3g} ms"
        )
