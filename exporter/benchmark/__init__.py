"""Benchmark: paired timing that holds on a noisy machine.

In: `Contender`s and input batches. Out: a `Race` with every sample, and the `BenchReport` that `bench.json` is made of.
"""

from exporter.benchmark.clock import Device
from exporter.benchmark.contender import Contender, EngineFile
from exporter.benchmark.environment import environment
from exporter.benchmark.measurement import Launch, Measurement, Race, Unavailable
from exporter.benchmark.messages import WarmUp
from exporter.benchmark.race import Progress, RaceOptions, race
from exporter.benchmark.result import BenchReport, report_on
from exporter.benchmark.statistics import Summary, efficiency, ratio, summarize

__all__ = [
    "BenchReport",
    "Contender",
    "Device",
    "EngineFile",
    "Launch",
    "Measurement",
    "Progress",
    "Race",
    "RaceOptions",
    "Summary",
    "Unavailable",
    "WarmUp",
    "efficiency",
    "environment",
    "race",
    "ratio",
    "report_on",
    "summarize",
]
