"""The targets that merging has to reach on a GPU, and whether it does, here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tools.gpu.figures import Row
from tools.gpu.jobs import ENGINES, MODELS

LEAST_EFFICIENCY, LARGE_BATCH = 0.95, 64
LEAST_SPEEDUP = 2.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One target.

    Attributes:
        target: what is demanded.
        status: `met` by all that ran, `missed` by some, or `not run` by any.
        found: the figures behind it.
    """

    target: str
    status: Literal["met", "missed", "not run"]
    found: str


def verdicts(rows: Sequence[Row]) -> tuple[Verdict, ...]:
    """The three targets, judged by reduced engines in 16 bits: a compiled one, or a program replayed from a graph."""
    engines = [row for row in rows if row.is_reduced and is_engine(row)]
    return (
        _all_of(
            f"reduced over dense engine at least {LEAST_EFFICIENCY:.0%} of the ratio of executed MACs, "
            f"batch {LARGE_BATCH} and above",
            [
                (row, row.efficiency.value)
                for row in engines
                if row.batch >= LARGE_BATCH and row.efficiency is not None
            ],
            LEAST_EFFICIENCY,
        ),
        _all_of(
            "never slower than the dense engine, batch 1",
            [
                (row, row.latency_over_dense.value)
                for row in engines
                if row.batch == 1 and row.latency_over_dense is not None
            ],
            1.0,
        ),
        _best_of(
            f"at least {LEAST_SPEEDUP:g}x over eager fp16, {MODELS['vit_b'].title}, r=13, batch 64",
            [
                (row, row.over_baseline.value)
                for row in engines
                if (row.model, row.batch, row.entry.merging) == (MODELS["vit_b"].title, 64, "r13")
                and row.over_baseline is not None
            ],
            LEAST_SPEEDUP,
        ),
    )


def is_engine(row: Row) -> bool:
    """Whether nothing of a call is left to Python's operators."""
    narrow = row.entry.precision in ("fp16", "bf16")
    return narrow and (row.entry.kind in ENGINES or (row.entry.kind == "program" and row.entry.cuda_graph))


def label(row: Row) -> str:
    """A row in one phrase."""
    return f"{row.model} batch {row.batch} {row.entry.name}"


def _all_of(target: str, figures: Sequence[tuple[Row, float]], least: float) -> Verdict:
    if not figures:
        return Verdict(target=target, status="not run", found="no engine of this kind was timed")
    met = sum(value >= least for _, value in figures)
    row, value = min(figures, key=lambda each: each[1])
    return Verdict(
        target=target,
        status="met" if met == len(figures) else "missed",
        found=f"{met} of {len(figures)} engines; the worst {value:.3f}: {label(row)}",
    )


def _best_of(target: str, figures: Sequence[tuple[Row, float]], least: float) -> Verdict:
    if not figures:
        return Verdict(target=target, status="not run", found="no engine of this kind was timed")
    row, value = max(figures, key=lambda each: each[1])
    return Verdict(
        target=target,
        status="met" if value >= least else "missed",
        found=f"the best {value:.2f}: {row.entry.name}",
    )
