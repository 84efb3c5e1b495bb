"""Callbacks that leave a file for every call, and a sweep over them that tests can kill."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import UsageError
from exporter.schedule import ScheduleRequest
from exporter.sweep import Axes, Builder, Built, Conditions, Point, Timed, Work, drive, grid, open_store
from exporter.sweep.drive import OnProgress, silent
from exporter.sweep.workers import serve_builds

CONDITIONS = Conditions(building={"model": "tiny", "weights": "ab12"}, timing={"threads": 1})
POINTS = grid(Axes(r=(0, 1, 2, 3, 4, 5)))

SLOW, WRONG, KILLED, BROKEN = (Point(schedule=ScheduleRequest(r=r)) for r in (100, 101, 102, 103))


def built(point: Point) -> Built:
    r = point.schedule.r
    return Built(tokens=(17, 17 - r), merged=(r,), gmacs_executed=2.0 - r / 10, gmacs_ratio=2 / (2 - r / 10))


def timed(point: Point) -> Timed:
    return Timed(images_per_s=100.0 + point.schedule.r, latency_ms=10.0)


def build(setup: Mapping[str, Any], point: Point) -> Built:
    """Counts itself in `calls`; some points misbehave."""
    _count(setup["calls"], "build", point)
    print("noise of a library")
    if point == WRONG:
        raise UsageError("schedule: cannot be met")
    if point == BROKEN:
        raise ZeroDivisionError("a bug\nin two lines")
    if point == KILLED:
        os.kill(os.getpid(), 9)
    if point == SLOW:
        child = subprocess.Popen(["sleep", "600"])
        (Path(setup["calls"]) / f"child.{point.name}.{child.pid}").touch()
        child.wait()
    time.sleep(0.05)
    return built(point)


@dataclass(frozen=True)
class Time:
    """Counts itself in `calls`."""

    calls: str

    def __call__(self, point: Point) -> Timed:
        _count(self.calls, "time", point)
        time.sleep(0.05)
        return timed(point)


def calls_of(calls: Path, stage: str, point: Point) -> int:
    return len(list(calls.glob(f"{stage}.{point.name}.*")))


def pids(calls: Path) -> set[int]:
    """Return the processes that built, and those that they started."""
    return {int(path.name.split(".")[2]) for path in [*calls.glob("build.*"), *calls.glob("child.*")]}


def work(calls: Path) -> Work:
    calls.mkdir(exist_ok=True)
    command = (sys.executable, "-m", "tests.unit.sweep.counting_work", "worker")
    return Work(build=Builder(command=command, setup={"calls": str(calls)}), time=Time(str(calls)))


def sweep(
    folder: Path, points: tuple[Point, ...] = POINTS, *, jobs: int = 1, tell: OnProgress = silent
) -> None:
    with open_store(folder / "sweep", CONDITIONS) as store:
        drive(points, work(folder / "calls"), store, jobs=jobs, on_progress=tell)


def _count(calls: str, stage: str, point: Point) -> None:
    (Path(calls) / f"{stage}.{point.name}.{os.getpid()}.{time.monotonic_ns()}").touch()


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        serve_builds(build)
        sys.exit()
    try:
        slow = sys.argv[2:] == ["slow"]
        sweep(Path(sys.argv[1]), (SLOW, *POINTS) if slow else POINTS, jobs=2 if slow else 1)
    except KeyboardInterrupt:
        sys.exit(130)
