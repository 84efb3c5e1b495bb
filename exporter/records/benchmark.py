"""`bench.json`: times in milliseconds per call, memory in bytes, throughput in images per second."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from exporter.records.intervals import Ratio
from exporter.records.reading import LENIENT

BENCH_FILE = "bench.json"
_OVER = " / "


@dataclass(frozen=True, kw_only=True)
class LaunchRecord:
    """One process of a contender; `calls` is the number of timed calls in each round."""

    load_ms: float
    first_ms: float
    warm_up_calls: int
    settled: bool
    other_load: float
    peak_memory_bytes: int
    calls: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ContenderRecord:
    """One contender at one batch size; a figure that the file does not give is None.

    Attributes:
        name: unique within a batch size.
        kind: `module`, `compiled`, `program` or `engine`.
        target: the engine's; None for PyTorch.
        reduced: whether it has fewer tokens than the dense model.
        batch: images per call.
        executed_macs: multiply-accumulates of one image.
        samples_ms: every timed call, by launch and round.
        launches: one per process.
        median_ms: half of the calls took less; likewise `p90_ms` and `p99_ms`.
        iqr_ms: between the first and the third quartile.
        images_per_s: throughput of the median round.
        peak_memory_bytes: the largest of all launches.
        load_ms: median of the launches; likewise `first_ms`, the first inference.
        block_ms: milliseconds of a call by block, where the engine can be profiled.
        infer_samples_per_sec: mean throughput, in timm's words; likewise the next two.
        infer_step_time: mean time of a call in milliseconds.
        infer_batch_size: images per call.
    """

    name: str
    kind: str = ""
    target: str | None = None
    reduced: bool
    batch: int
    executed_macs: int | None = None
    samples_ms: tuple[float, ...] = ()
    launches: tuple[LaunchRecord, ...] = ()
    median_ms: float
    p90_ms: float | None = None
    p99_ms: float | None = None
    iqr_ms: float | None = None
    images_per_s: float | None = None
    peak_memory_bytes: int | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    block_ms: Mapping[str, float] = field(default_factory=dict)
    infer_samples_per_sec: float | None = None
    infer_step_time: float | None = None
    infer_batch_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class UnavailableRecord:
    """A contender that was not timed, and why."""

    name: str
    batch: int | None = None
    reason: str

    @property
    def label(self) -> str:
        """The name with the batch size, where it is known."""
        return self.name if self.batch is None else f"{self.name}, batch {self.batch}"


@dataclass(frozen=True, kw_only=True)
class RatioRecord(Ratio):
    """How many times as fast one contender is as another at one batch size; the name is `contender / baseline`."""

    name: str
    batch: int

    @classmethod
    def between(cls, contender: str, baseline: str, batch: int, ratio: Ratio) -> "RatioRecord":
        """The record of a ratio between two contenders of a batch size."""
        return cls(
            name=f"{contender}{_OVER}{baseline}", batch=batch, value=ratio.value, interval=ratio.interval
        )

    @property
    def contender(self) -> str:
        """Name of the contender."""
        return self.name.partition(_OVER)[0]

    @property
    def baseline(self) -> str:
        """Name of what it is compared with."""
        return self.name.partition(_OVER)[2]


@dataclass(frozen=True, kw_only=True)
class EfficiencyRecord(Ratio):
    """Merge efficiency of a reduced engine at one batch size: measured speedup over the dense engine, by `macs_ratio`.

    Attributes:
        name: of the contender; empty in files that name the target only.
        target: of the engine.
        batch: images per call.
        macs_ratio: executed multiply-accumulates of the dense engine over its own.
    """

    name: str = ""
    target: str = ""
    batch: int
    macs_ratio: float


@dataclass(frozen=True, kw_only=True)
class BlockTime:
    """Milliseconds of a call that are spent in a block."""

    block: int
    ms: float


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """Everything measured in time and memory.

    Attributes:
        own: by target, the name of the contender that is this bundle's engine; empty where the file does not say.
        blocks: by target, the time of each block at the smallest batch size.
        contenders: those that were timed.
        unavailable: the others.
        ratios: over eager dense, then over the dense engine.
        merge_efficiency: at the smallest batch size, by target; by contender where a target has several.
        efficiencies: of each reduced engine that raced beside its dense engine.
        warnings: what makes a figure doubtful, each `name: what`.
        environment: the machine and the packages.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = LENIENT

    own: Mapping[str, str] = field(default_factory=dict)
    blocks: Mapping[str, tuple[BlockTime, ...]] = field(default_factory=dict)
    contenders: tuple[ContenderRecord, ...] = ()
    unavailable: tuple[UnavailableRecord, ...] = ()
    ratios: tuple[RatioRecord, ...] = ()
    merge_efficiency: Mapping[str, float] = field(default_factory=dict)
    efficiencies: tuple[EfficiencyRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    environment: Mapping[str, object] = field(default_factory=dict)

    @property
    def main_ratio(self) -> RatioRecord | None:
        """The ratio to remember: of the bundle's own engine, or a reduced one, or else the first one, if any."""
        reduced = [each.name for each in self.contenders if each.reduced and each.target is not None]
        engines = self.own.values() or reduced
        return next(iter([*(row for row in self.ratios if row.contender in engines), *self.ratios]), None)
