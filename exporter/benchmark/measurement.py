"""The result of a race: every sample, and why a contender could not be timed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.benchmark.contender import Contender

Samples = tuple[tuple[tuple[float, ...], ...], ...]
"""Milliseconds of each call, by launch, round and call."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One process of a contender.

    Attributes:
        load_ms: from a Python interpreter that has imported numpy to a model that can run, libraries included.
        first_ms: the first inference; of `torch.compile` it holds the compilation.
        warm_up_calls: until warm.
        settled: whether it got warm (`WarmUp`).
        rounds: milliseconds of each call of each round.
        other_load: how many of the cores that it may use other processes kept busy during its rounds, on average.
        peak_memory_bytes: at most, over the first inference, warm-up and rounds.
        peak_since: `load`, or `start` where the peak holds loading as well.
    """

    load_ms: float
    first_ms: float
    warm_up_calls: int
    settled: bool
    rounds: tuple[tuple[float, ...], ...]
    other_load: float
    peak_memory_bytes: int
    peak_since: str


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A contender that was timed in every launch.

    Attributes:
        contender: what was timed.
        launches: one per process.
        notes: what was not as asked for, each as `name: what`.
        block_ms: milliseconds of a call by block, profiled once; empty where it cannot be profiled.
    """

    contender: Contender
    launches: tuple[Launch, ...]
    notes: tuple[str, ...] = ()
    block_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def samples(self) -> Samples:
        """By launch, round and call."""
        return tuple(launch.rounds for launch in self.launches)

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """All of them, in order of launch and round."""
        return tuple(each for launch in self.launches for one in launch.rounds for each in one)


@dataclass(frozen=True, kw_only=True)
class Unavailable:
    """A contender that could not be loaded, died, or did not answer in time; whatever it had been timed is dropped."""

    contender: Contender
    reason: str


@dataclass(frozen=True, kw_only=True)
class Race:
    """All contenders, in the order in which they were given.

    Attributes:
        measurements: those that were timed.
        unavailable: the others.
        threads: of each contender.
        cores: that they were pinned to.
        device: that they computed on.
        device_facts: what CUDA says of it, by contender label; clocks and power are as they were after its rounds.
    """

    measurements: tuple[Measurement, ...]
    unavailable: tuple[Unavailable, ...]
    threads: int
    cores: tuple[int, ...]
    device: str
    device_facts: Mapping[str, Mapping[str, str | int | float]] = field(default_factory=dict)

    @property
    def samples(self) -> dict[str, Samples]:
        """By contender label, launch, round and call."""
        return {each.contender.label: each.samples for each in self.measurements}
