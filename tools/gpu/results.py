"""What came back, as plain frozen data, and the two files that it is written to."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA_VERSION = 1

State = Literal["timed", "listed", "failed", "not run"]


@dataclass(frozen=True, kw_only=True)
class Round:
    """One visit to a contender.

    Attributes:
        latency_ms: of single calls, each on an idle GPU, launches included.
        window_ms: of a call on average, where calls are enqueued one after the other without waiting.
        window_calls: how many those were.
    """

    latency_ms: tuple[float, ...]
    window_ms: float
    window_calls: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One contender of a job, launched kernel by kernel or replayed from a CUDA graph.

    Attributes:
        name: of the contender, with ` graph` where it is replayed.
        kind: what runs it.
        merging: a key of `MERGINGS`.
        precision: of the products.
        form: mask and selection, where a job compares them; else empty.
        cuda_graph: whether it is replayed.
        state: what became of it.
        reason: why there are no figures, if there are none.
        executed_macs: of one image; 0 where it is not known.
        facts: what building it found out: seconds, parity, memory, attention fused.
        rounds: in order.
        kernels: where its time goes, the longest first; for jobs that list kernels.
    """

    name: str
    kind: str
    merging: str
    precision: str
    form: str = ""
    cuda_graph: bool = False
    state: State
    reason: str = ""
    executed_macs: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    rounds: tuple[Round, ...] = ()
    kernels: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What became of a job.

    Attributes:
        name: of the job.
        model: its title.
        batch: images per call.
        purpose: of the job.
        reason: why it was not run, or not to its end; empty if it was.
        seconds: that it took.
        entries: of its contenders.
        clocks: what the driver said after each round.
    """

    name: str
    model: str
    batch: int
    purpose: str
    reason: str = ""
    seconds: float = 0.0
    entries: tuple[Entry, ...] = ()
    clocks: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Check:
    """The whole run, as far as it is.

    Attributes:
        machine: GPU, driver, versions.
        budget_s: that it may take.
        seconds: that it took.
        finished: whether the end of the list was reached.
        jobs: in order.
    """

    machine: Mapping[str, Any]
    budget_s: float
    seconds: float
    finished: bool
    jobs: tuple[JobResult, ...]


def to_json(check: Check, derived: Mapping[str, Any]) -> str:
    """One document: the raw samples, then what is derived from them."""
    tree = {"schema_version": SCHEMA_VERSION, **asdict(check), **derived}
    return json.dumps(tree, allow_nan=False, indent=1) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
