"""From times to figures: throughput, ratios, merge efficiency, and the targets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from exporter.benchmark import Summary, summarize
from tools.gpu.contenders import Contender
from tools.gpu.drive import Result


@dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one contender.

    Attributes:
        result: that they are of.
        summary: of its calls.
        over_library: how many times as fast as the library's module in eager fp16.
        over_dense: how many times as fast as the contender that differs in merging alone.
        macs_ratio: executed multiply-accumulates of that dense contender over its own.
    """

    result: Result
    summary: Summary
    over_library: float | None
    over_dense: float | None
    macs_ratio: float | None

    @property
    def contender(self) -> Contender:
        """Which one."""
        return self.result.entry.contender

    @property
    def efficiency(self) -> float | None:
        """`over_dense` over `macs_ratio`."""
        if self.over_dense is None or self.macs_ratio is None:
            return None
        return self.over_dense / self.macs_ratio

    @property
    def right(self) -> bool:
        """Whether its outputs are those of the reference; the library's are not compared."""
        return bool(self.result.facts.get("right", True))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One target.

    Attributes:
        target: what is demanded.
        status: `met` or `missed` by the best contender that computes the right outputs, or `not run`.
        found: the figure that decides, and whose it is.
    """

    target: str
    status: Literal["met", "missed", "not run"]
    found: str


class _Target(NamedTuple):
    """A demand on one figure of ViT-B/16; it is met or missed by the best contender of that batch and merging."""

    text: str
    figure: Literal["over_library", "over_dense", "efficiency"]
    batch: int
    merging: str
    precision: str
    least: float


TARGETS = (
    _Target("dense over eager fp16", "over_library", 64, "dense", "fp16", 1.35),
    _Target("efficiency, r = 13", "efficiency", 64, "r13", "fp16", 0.92),
    _Target("efficiency, r = 13", "efficiency", 256, "r13", "fp16", 0.95),
    _Target("r = 13 over eager fp16", "over_library", 64, "r13", "fp16", 2.0),
    _Target("r = 16 fp8 over eager fp16", "over_library", 256, "r16", "fp8", 3.0),
    _Target("r = 13 over own dense", "over_dense", 1, "r13", "fp16", 1.0),
    _Target("r = 13 over own dense", "over_dense", 8, "r13", "fp16", 1.0),
)


def rows(results: Iterable[Result]) -> list[Row]:
    """One per timed contender, in their order."""
    timed = {each.entry.contender: each for each in results if each.rounds}
    return [_row(each, timed.values()) for each in timed.values()]


def verdicts(found: Sequence[Row]) -> tuple[Verdict, ...]:
    """Every target, judged by the best that runs without Python's launches."""
    return tuple(_verdict(target, found) for target in TARGETS)


def _row(result: Result, others: Iterable[Result]) -> Row:
    contender, summary = result.entry.contender, _summary(result)
    library = dense = None
    for other in others:
        beside = other.entry.contender
        if (beside.model, beside.batch) == (contender.model, contender.batch) and beside.is_baseline:
            library = other
        if beside.is_dense_form_of(contender):
            dense = other
    return Row(
        result=result,
        summary=summary,
        over_library=_over(library, summary) if library is not result else None,
        over_dense=_over(dense, summary),
        macs_ratio=dense.entry.executed_macs / result.entry.executed_macs if dense is not None else None,
    )


def _over(other: Result | None, summary: Summary) -> float | None:
    return None if other is None else _summary(other).median_ms / summary.median_ms


def _summary(result: Result) -> Summary:
    return summarize([result.rounds], result.entry.contender.batch)


def _verdict(target: _Target, found: Sequence[Row]) -> Verdict:
    text = f"ViT-B/16, batch {target.batch}: {target.text} at least {target.least:g}"
    known = [
        (value, row.contender.name)
        for row in found
        if row.right and row.contender.graph and row.contender.kind != "library"
        if (row.contender.model, row.contender.batch) == ("vit_b", target.batch)
        if (row.contender.merging, row.contender.precision) == (target.merging, target.precision)
        if (value := getattr(row, target.figure)) is not None
    ]
    if not known:
        return Verdict(target=text, status="not run", found="no such contender was timed with right outputs")
    value, name = max(known)
    return Verdict(
        target=text, status="met" if value >= target.least else "missed", found=f"{value:.3f}: {name}"
    )
