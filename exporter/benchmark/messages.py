"""The language between a race and its workers: one JSON object per line, requests on stdin, answers on stdout.

Libraries print to stdout, some from native code. So a worker first puts the real stdout aside and points the
descriptor at stderr; only answers go out.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

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


class Channel:
    """The worker's end."""

    def __init__(self, requests: TextIO, answers: TextIO) -> None:
        self._requests = requests
        self._answers = answers

    @classmethod
    def take_stdout(cls) -> "Channel":
        """Keep stdout for answers; from here on whatever is printed goes to stderr."""
        answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        sys.stdout.flush()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(sys.stdin, answers)

    def requests(self) -> Iterator[dict[str, Any]]:
        """Requests as they come, until the race closes its end."""
        for line in self._requests:
            yield json.loads(line)

    def answer(self, tree: Mapping[str, Any]) -> None:
        """Send one answer."""
        self._answers.write(json.dumps(tree, allow_nan=False) + "\n")
        self._answers.flush()
