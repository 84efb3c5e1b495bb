"""What a race asks its workers, as JSON values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.benchmark.clock import Device
from exporter.benchmark.contender import Contender, contender_from, to_tree


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """When a contender counts as warm: the medians of two windows of calls, one after the other, agree.

    Attributes:
        window_calls: calls in a window, at least.
        window_ms: and at least so many milliseconds.
        tolerance: how much the two medians may differ, as a share of the smaller.
        most_ms: give up after so many milliseconds; the contender is then raced as unsettled.
    """

    window_calls: int = 3
    window_ms: float = 100.0
    tolerance: float = 0.05
    most_ms: float = 10_000.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is told to prepare.

    Attributes:
        contender: what to load.
        images: the input batch, a `.npy` file (batch, ...).
        threads: for PyTorch and engines.
        cores: that the process may use.
        device: that it computes on.
        warm_up: when it is warm.
    """

    contender: Contender
    images: Path
    threads: int
    cores: tuple[int, ...]
    device: Device
    warm_up: WarmUp


def job_to_tree(job: Job) -> dict[str, Any]:
    """A job as JSON values."""
    return {
        "contender": to_tree(job.contender),
        "images": str(job.images.absolute()),
        "threads": job.threads,
        "cores": list(job.cores),
        "device": job.device,
        "warm_up": dict(vars(job.warm_up)),
    }


def job_from(tree: Mapping[str, Any]) -> Job:
    """The job that `job_to_tree` wrote."""
    return Job(
        contender=contender_from(tree["contender"]),
        images=Path(tree["images"]),
        threads=tree["threads"],
        cores=tuple(tree["cores"]),
        device=tree["device"],
        warm_up=WarmUp(**tree["warm_up"]),
    )
