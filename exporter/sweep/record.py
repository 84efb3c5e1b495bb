"""`sweep.json`: the result of a sweep, and all that the report reads of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from exporter.errors import BundleError
from exporter.records import (
    OMIT,
    STRICT,
    Accuracy,
    Difference,
    Fidelity,
    Ratio,
    canonical_json,
    read_file,
    write_whole,
)
from exporter.sweep.grid import Point

SWEEP_FILE = "sweep.json"
_REMEDY = "run the sweep again into this folder"
SCHEMA_VERSION: Literal[1] = 1

QualityMeasure = Literal["top1", "top1_agreement", "cosine_mean"]
"""What a front has on its quality axis; the larger the better."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good a point's outputs are; a part that was not measured is None."""

    accuracy: Accuracy | None = None
    difference: Difference | None = None
    fidelity: Fidelity | None = None

    def of(self, measure: QualityMeasure) -> float | None:
        """One figure, None if it was not measured."""
        if measure == "top1":
            return self.accuracy.top1 if self.accuracy is not None else None
        if self.fidelity is None:
            return None
        return self.fidelity.top1_agreement if measure == "top1_agreement" else self.fidelity.cosine_mean


@dataclass(frozen=True, kw_only=True)
class Built:
    """Result of a point's first stage: an engine that passed parity, and how good its outputs are.

    Attributes:
        tokens: tokens that enter each block, then the final count, length L + 1.
        merged: tokens merged in each block, length L.
        gmacs_executed: multiply-accumulates of the emitted graph, in 1e9.
        gmacs_ratio: those of the dense graph divided by these.
        quality: of the outputs.
        digest: what identifies the engine's folder, so that a later run can tell whether it is still there.
        notes: visible lines, such as a capped schedule.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    tokens: tuple[int, ...]
    merged: tuple[int, ...]
    gmacs_executed: float
    gmacs_ratio: float
    quality: Quality = field(default_factory=Quality)
    digest: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Result of a point's second stage, measured with nothing else running.

    Attributes:
        images_per_s: throughput.
        latency_ms: median time of a batch.
        latency_error_ms: standard error of that median, None if unknown.
        batch: images at once.
        speedup: over the dense engine of the same target and precision; None for the dense engine itself.
        peak_memory_bytes: None if unknown.
        warnings: what makes the figures doubtful.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    images_per_s: float
    latency_ms: float
    latency_error_ms: float | None = None
    batch: int = 1
    speedup: Ratio | None = None
    peak_memory_bytes: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a point has no result.

    Attributes:
        stage: where it stopped.
        error: one line.
        exit_status: that a command with this error ends with.
    """

    stage: Literal["build", "time"]
    error: str
    exit_status: int


@dataclass(frozen=True, kw_only=True)
class PointResult:
    """Everything that is known of a point.

    Attributes:
        name: the point's, and its folder's under `bundles/`.
        point: what was asked.
        key: of its content in the cache.
        status: done once it is built and timed; open if the sweep stopped before that.
        built: the first stage, if it finished.
        timed: the second stage, if it finished.
        failure: why a stage did not.
    """

    name: str
    point: Point
    key: str
    status: Literal["done", "failed", "open"]
    built: Built | None = None
    timed: Timed | None = None
    failure: Failure | None = None

    @property
    def tokens(self) -> tuple[int, ...] | None:
        """Tokens that enter each block, then the final count."""
        return self.built.tokens if self.built is not None else None

    @property
    def gmacs_executed(self) -> float | None:
        """Multiply-accumulates of the emitted graph, in 1e9."""
        return self.built.gmacs_executed if self.built is not None else None

    @property
    def quality(self) -> Quality:
        """Of the outputs; empty before the point is built."""
        return self.built.quality if self.built is not None else Quality()

    @property
    def images_per_s(self) -> float | None:
        """Throughput."""
        return self.timed.images_per_s if self.timed is not None else None

    @property
    def speedup(self) -> Ratio | None:
        """Over the dense engine of the same target and precision."""
        return self.timed.speedup if self.timed is not None else None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A schedule that a solver evaluated; a figure that was not needed is None.

    Attributes:
        name: the point's.
        r_per_layer: tokens merged in each block.
        drop_per_layer: tokens dropped in each block; None where none is.
        drop: points lost against dense.
        predicted_speedup: by the latency table.
        measured_speedup: by the benchmark.
    """

    name: str
    r_per_layer: tuple[int, ...]
    drop_per_layer: tuple[int, ...] | None = field(default=None, metadata=OMIT)
    drop: float | None = None
    predicted_speedup: float | None = None
    measured_speedup: float | None = None

    @property
    def lists(self) -> dict[str, str]:
        """The schedule by option, as it is asked for."""
        counts = {"--r-per-layer": self.r_per_layer, "--drop-per-layer": self.drop_per_layer}
        return {option: ",".join(map(str, each)) for option, each in counts.items() if each is not None}


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Result of a solver.

    Attributes:
        goal: what was asked for.
        limit: points for max_drop, a ratio for min_speedup.
        best: the answer; where the goal is not reachable, what came nearest (None if nothing could be measured).
        reached: whether `best` meets the goal, by measurement.
        explanation: one line for the user.
        evaluated: everything that was evaluated, in that order.
    """

    goal: Literal["max_drop", "min_speedup"]
    limit: float
    best: Evaluation | None
    reached: bool
    explanation: str
    evaluated: tuple[Evaluation, ...]


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """The whole sweep.

    Attributes:
        model: its name.
        weights_sha256: of its weights.
        data: name of the images or texts, None if quality was not measured.
        counted: what an engine takes one or more of at a time.
        quality_measure: what the front has on its quality axis, None if quality was not measured.
        environment: machine and versions; plain values.
        points: in the order of the grid.
        front: names of the points that no other one beats in both quality and throughput, slowest first.
        solution: what a solver found, if one was asked.
        complete: whether every point is done or has failed.
        notes: visible lines.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str
    weights_sha256: str
    data: str | None = None
    counted: Literal["images", "texts"] = field(default="images", metadata=OMIT)
    quality_measure: QualityMeasure | None = None
    environment: Mapping[str, object] = field(default_factory=dict)
    points: tuple[PointResult, ...] = ()
    front: tuple[str, ...] = ()
    solution: Solution | None = None
    complete: bool = False
    notes: tuple[str, ...] = ()


def write_record(folder: Path, record: SweepRecord) -> None:
    """Writes `sweep.json` into the sweep's folder, whole or not at all."""
    write_whole(folder / SWEEP_FILE, canonical_json(record))


def read_record(folder: str | Path) -> SweepRecord:
    """Reads the `sweep.json` of a sweep's folder.

    Raises:
        BundleError: it is not there, is not JSON, or has another form.
    """
    path = Path(folder) / SWEEP_FILE
    if not path.is_file():
        raise BundleError(f"{path}: expected a file, got none; give the folder of a sweep")
    record = read_file(SweepRecord, path, _REMEDY)
    for point in record.points:
        if point.built is not None and len(point.built.tokens) != len(point.built.merged) + 1:
            raise BundleError(
                f"{path}: {point.name}: expected {len(point.built.merged) + 1} token counts, one more than blocks, got "
                f"{len(point.built.tokens)}; {_REMEDY}"
            )
    if missing := set(record.front) - {point.name for point in record.points}:
        raise BundleError(f"{path}: front names {min(missing)}, which is not a point; {_REMEDY}")
    return record
