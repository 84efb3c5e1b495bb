"""The points of a sweep, in a fixed order: each becomes one engine."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from exporter.errors import UsageError
from exporter.records import canonical_json
from exporter.schedule import ScheduleKind, ScheduleRequest

DENSE_METHOD = "tome"
"""The method that a dense point carries: nothing merges, so that any name would do."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One engine of a sweep.

    Attributes:
        method: of merging.
        method_options: the method's own options that were set, sorted by name.
        schedule: what is asked; resolved only when the model is known.
        precision: of the engine.
        target: the engine's name.
    """

    method: str = DENSE_METHOD
    method_options: tuple[tuple[str, bool | int | float | str], ...] = ()
    schedule: ScheduleRequest = field(default_factory=ScheduleRequest)
    precision: str = "fp32"
    target: str = "onnx"

    @property
    def is_dense(self) -> bool:
        """Whether nothing is merged, as far as the request alone can tell."""
        return self.schedule.is_dense

    @property
    def name(self) -> str:
        """Short, unique, and safe as the name of a folder: `tome-constant-r8-fp32-onnx`."""
        if self == self.dense:
            readable, says_all = f"dense-{self.precision}-{self.target}", True
        else:
            schedule, says_all = _schedule_words(self.schedule)
            readable = f"{self.method}-{schedule}-{self.precision}-{self.target}"
        safe = re.sub(r"[^a-z0-9_-]", "_", readable.lower())
        complete = says_all and safe == readable and not self.method_options
        return safe if complete else f"{safe}-{_digest(self)}"

    @property
    def dense(self) -> "Point":
        """The point with the same engine and precision that merges nothing: what a speedup is measured against."""
        return Point(precision=self.precision, target=self.target)

    def scheduled(self, schedule: ScheduleRequest) -> "Point":
        """The same engine with another schedule; one that merges nothing is the dense point."""
        point = replace(self, schedule=schedule)
        return point.dense if point.is_dense else point


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What is varied; every combination becomes a point.

    Attributes:
        r: tokens that leave each block; 0 is dense.
        keep_rates: fractions of the patches that are kept at a few blocks, as `ScheduleRequest.keep_rate` says.
        methods: by name, each with the options that are set for it.
        kinds: how r is spread over the blocks.
        aligns: multiples that later token counts are moved to; 1 moves nothing.
        precisions: of the engines.
        targets: engines.
    """

    r: Sequence[int] = ()
    keep_rates: Sequence[float] = ()
    methods: Mapping[str, Mapping[str, bool | int | float | str]] = field(
        default_factory=lambda: {DENSE_METHOD: {}}
    )
    kinds: Sequence[ScheduleKind] = ("constant",)
    aligns: Sequence[int] = (1,)
    precisions: Sequence[str] = ("fp32",)
    targets: Sequence[str] = ("onnx",)


def grid(axes: Axes) -> tuple[Point, ...]:
    """Every combination once, in the order of the axes: targets and precisions outside, r and keep rates inside.

    All dense combinations of one target and precision are one point; keep rates have no kind and no alignment.

    Raises:
        UsageError: an axis is empty, r is negative, or a multiple is not positive.
    """
    _check(axes)
    points = (
        each.scheduled(schedule)
        for each in families(axes)
        for schedule in (
            *(replace(each.schedule, r=r) for r in axes.r),
            *(ScheduleRequest(keep_rate=rate) for rate in axes.keep_rates),
        )
    )
    return tuple(dict.fromkeys(points))


def families(axes: Axes) -> tuple[Point, ...]:
    """Every combination but for r, in the order of the axes."""
    return tuple(
        Point(
            method=method,
            method_options=tuple(sorted(axes.methods[method].items())),
            schedule=ScheduleRequest(kind=kind, align=None if align == 1 else align),
            precision=precision,
            target=target,
        )
        for target, precision, method, kind, align in product(
            axes.targets, axes.precisions, axes.methods, axes.kinds, axes.aligns
        )
    )


def with_dense(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points, and before them every dense one that their speedups need and that is not among them."""
    needed = dict.fromkeys(point.dense for point in points)
    return tuple(dict.fromkeys([*(point for point in needed if point not in points), *points]))


def _check(axes: Axes) -> None:
    listed = {
        "r": axes.r or axes.keep_rates,
        "method": axes.methods,
        "schedule": axes.kinds,
        "align": axes.aligns,
        "precision": axes.precisions,
        "target": axes.targets,
    }
    for option, values in listed.items():
        if not values:
            raise UsageError(f"sweep: --{option} lists nothing; give at least one value")
    if min(axes.r, default=0) < 0:
        raise UsageError(f"sweep: expected every --r >= 0, got {min(axes.r)}; 0 is the dense model")
    for rate in axes.keep_rates:
        if not 0 < rate <= 1:
            raise UsageError(f"sweep: expected every --keep-rate above 0 and at most 1, got {rate:g}")
    if min(axes.aligns) < 1:
        raise UsageError(f"sweep: expected every --align >= 1, got {min(axes.aligns)}; 1 aligns nothing")


def _schedule_words(schedule: ScheduleRequest) -> tuple[str, bool]:
    """A schedule in a few words, and whether they say all of it."""
    match schedule.form:
        case "r_per_layer":
            return f"list{sum((*(schedule.r_per_layer or ()), *(schedule.drop_per_layer or ())))}", False
        case "keep_per_layer":
            return "keep", False
        case "published":
            return f"{schedule.published}", True
        case "keep_rate":
            return f"rate{schedule.keep_rate:g}", False
        case "slots_for":
            return f"slots{schedule.slots_for:g}", False
    align = "" if schedule.align is None else f"-align{schedule.align}"
    drop = "" if schedule.drop_share is None else f"-drop{schedule.drop_share:g}"
    return f"{schedule.kind}-r{schedule.r}{align}{drop}", schedule.r >= 0


def _digest(point: Point) -> str:
    return hashlib.sha256(canonical_json(point)).hexdigest()[:8]
