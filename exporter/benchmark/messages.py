"""What a race asks its workers, as JSON values."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from exporter.benchmark.clock import Device
from exporter.benchmark.contender import Contender
from exporter.records import STRICT


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """When a contender counts as warm: the medians of two windows of calls, one after the other, agree.

    Attributes:
        window_calls: calls in a window, at least.
        window_ms: and at least this many milliseconds.
        tolerance: how much the two medians may differ, as a share of the smaller.
        most_ms: give up after this many milliseconds; the contender is then raced as unsettled.
    """

    window_calls: int = 3
    window_ms: float = 100.0
    tolerance: float = 0.05
    most_ms: float = 10_000.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker has to prepare.

    Attributes:
        contender: what to load.
        images: the input batch, a `.npy` file (batch, ...).
        threads: for PyTorch and engines.
        cores: that the process may use.
        device: that it computes on.
        warm_up: when it is warm.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    contender: Contender
    images: Path
    threads: int
    cores: tuple[int, ...]
    device: Device
    warm_up: WarmUp
