"""Processor cores: which ones to pin a contender to, and the load that other processes put on them."""

import time

import psutil

from exporter.errors import UsageError
from exporter.machine import physical_core, usable_cores


def pick_cores(threads: int) -> tuple[int, ...]:
    """As many cores as threads, each a physical core of its own as far as there are enough.

    The highest numbers come first: the kernel's own work gathers on the lowest.

    Raises:
        UsageError: this process may use fewer.
    """
    usable = sorted(usable_cores(), reverse=True)
    if not 1 <= threads <= len(usable):
        raise UsageError(f"threads: expected 1 to {len(usable)}, which this process may use, got {threads}")
    seen: set[str] = set()
    alone: list[int] = []
    siblings: list[int] = []
    for core in usable:
        physical = physical_core(core)
        (siblings if physical in seen else alone).append(core)
        seen.add(physical)
    return tuple(sorted([*alone, *siblings][:threads]))


class LoadMeter:
    """Load that other processes put on some cores between its creation and `read`."""

    def __init__(self, cores: tuple[int, ...]) -> None:
        self._cores = cores
        self._busy_s = _busy_seconds(cores)
        self._started = time.monotonic()

    def read(self, own_s: float) -> float:
        """Number of cores that others kept busy, on average.

        Args:
            own_s: processor seconds of the contender.
        """
        elapsed = time.monotonic() - self._started
        others = _busy_seconds(self._cores) - self._busy_s - own_s
        return max(others, 0.0) / elapsed if elapsed > 0 else 0.0


def _busy_seconds(cores: tuple[int, ...]) -> float:
    """Since boot, of anything but waiting; stolen time counts, since it is another machine's work on this core."""
    times = psutil.cpu_times(percpu=True)
    return sum(
        each.user + each.system + each.nice + each.irq + each.softirq + each.steal
        for each in (times[core] for core in cores if core < len(times))
    )
