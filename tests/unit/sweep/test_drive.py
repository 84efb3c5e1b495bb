"""Building and timing every point once, whatever fails, dies or is interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from exporter.errors import InternalError, UsageError
from exporter.sweep import Point, Progress, Timed, drive, finished, jobs_that_fit, open_store
from tests.unit.sweep.counting_work import (
    BROKEN,
    CONDITIONS,
    KILLED,
    POINTS,
    SLOW,
    WRONG,
    built,
    calls_of,
    pids,
    sweep,
    timed,
    work,
)

ROOT = Path(__file__).resolve().parents[3]
GIB = 1 << 30


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the sweep got stuck"
        time.sleep(0.005)


def runs(pid: int) -> bool:
    """Return whether a process is there and not a zombie that nobody waits for."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def started(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.unit.sweep.counting_work", str(folder), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def results(folder: Path, stage: str) -> int:
    return len(list((folder / "sweep" / "points").glob(f"[!.]*.{stage}.json")))


# What a sweep does ---------------------------------------------------------------------------------------------------


def test_every_point_is_built_and_timed_once_and_comes_back_in_order(tmp_path: Path) -> None:
    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        got = drive((*POINTS, POINTS[0]), work(tmp_path / "calls"), store, jobs=2)

    assert [result.point for result in got] == list(POINTS)
    assert [result.built for result in got] == list(map(built, POINTS))
    assert [result.timed for result in got] == list(map(timed, POINTS))
    assert {result.status for result in got} == {"done"}
    assert {
        calls_of(tmp_path / "calls", stage, point) for stage in ("build", "time") for point in POINTS
    } == {1}
    assert os.getpid() not in pids(tmp_path / "calls")


def test_timing_starts_when_all_builds_are_done_and_their_processes_gone(tmp_path: Path) -> None:
    kinds: list[str] = []

    def tell(progress: Progress) -> None:
        kinds.append(progress.kind)
        if progress.kind == "timing":
            assert not any(map(runs, pids(tmp_path / "calls")))

    sweep(tmp_path, POINTS[:2], tell=tell)

    assert kinds == ["building", "built"] * 2 + ["timing", "timed"] * 2


def test_finished_points_are_not_redone_and_new_ones_are(tmp_path: Path) -> None:
    sweep(tmp_path, POINTS[:2])
    told: list[Progress] = []
    sweep(tmp_path, POINTS[:3], tell=told.append)

    assert [each.name for each in told if each.kind == "reused"] == [point.name for point in POINTS[:2]]
    assert [calls_of(tmp_path / "calls", "build", point) for point in POINTS[:3]] == [1, 1, 1]
    assert [calls_of(tmp_path / "calls", "time", point) for point in POINTS[:3]] == [1, 1, 1]
    assert (told[-1].done, told[-1].total) == (6, 6)


def test_points_that_fail_are_recorded_in_one_line_and_the_others_go_on(tmp_path: Path) -> None:
    points = (KILLED, WRONG, BROKEN, *POINTS[:2])
    told: list[Progress] = []
    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        got = drive(points, work(tmp_path / "calls"), store, on_progress=told.append)

    failures = [result.failure for result in got[:3]]
    assert [failure and failure.exit_status for failure in failures] == [128 + 9, 2, 70]
    assert failures[0] and "killed by SIGKILL" in failures[0].error
    assert failures[1] and failures[1].error == "schedule: cannot be met"
    assert failures[2] and failures[2].error == "ZeroDivisionError: a bug in two lines"
    assert [result.status for result in got] == ["failed"] * 3 + ["done"] * 2
    assert "Traceback" in next(each.details for each in told if each.name == BROKEN.name and each.details)


def test_failed_point_is_tried_again_by_the_next_run(tmp_path: Path) -> None:
    sweep(tmp_path, (WRONG,))
    sweep(tmp_path, (WRONG,))

    assert calls_of(tmp_path / "calls", "build", WRONG) == 2
    assert calls_of(tmp_path / "calls", "time", WRONG) == 0


def test_failure_while_timing_keeps_what_was_built(tmp_path: Path) -> None:
    def fails(_: object) -> object:
        raise UsageError("bench: no room")

    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        (got,) = drive(POINTS[:1], replace(work(tmp_path / "calls"), time=fails), store)  # type: ignore[arg-type]

    assert got.status == "failed" and got.failure is not None and got.failure.stage == "time"
    assert got.built == built(POINTS[0]) and got.timed is None


def test_result_that_is_no_number_fails_its_point_and_no_other(tmp_path: Path) -> None:
    def odd(point: Point) -> Timed:
        return replace(timed(point), latency_ms=float("nan") if point == POINTS[0] else 1.0)

    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        got = drive(POINTS[:2], replace(work(tmp_path / "calls"), time=odd), store)

    assert [result.status for result in got] == ["failed", "done"]
    assert got[0].failure is not None and "cannot be written" in got[0].failure.error


def test_without_a_timer_points_are_built_and_stay_open(tmp_path: Path) -> None:
    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        (got,) = drive(POINTS[:1], replace(work(tmp_path / "calls"), time=None), store)

    assert (got.status, got.built, got.timed) == ("open", built(POINTS[0]), None)


def test_engine_that_timing_needs_and_is_gone_is_built_again_and_said(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    told: list[Progress] = []
    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        drive(POINTS[:2], replace(work(calls), time=None), store)
        drive(POINTS[1:2], replace(work(calls), stands=lambda *_: False), store, on_progress=told.append)

    assert [calls_of(calls, "build", point) for point in POINTS[:2]] == [1, 2]
    assert [each.message for each in told if each.kind == "warning"] == [
        "its engine is no longer there; built again"
    ]


def test_engine_that_is_gone_does_not_matter_once_its_point_is_finished(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        drive(POINTS[:1], work(calls), store)
        drive(POINTS[:1], replace(work(calls), stands=lambda *_: False), store)

    assert calls_of(calls, "build", POINTS[0]) == 1


def test_callback_that_returns_something_else_is_the_compiler_s_fault(tmp_path: Path) -> None:
    with (
        open_store(tmp_path / "sweep", CONDITIONS) as store,
        pytest.raises(InternalError, match="returned NoneType"),
    ):
        drive(POINTS[:1], replace(work(tmp_path / "calls"), time=lambda _: None), store)  # type: ignore[arg-type, return-value]


def test_no_jobs_are_refused(tmp_path: Path) -> None:
    with open_store(tmp_path / "sweep", CONDITIONS) as store, pytest.raises(UsageError, match="at least one"):
        drive(POINTS, work(tmp_path / "calls"), store, jobs=0)


# Kills and interrupts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["built", "timed"])
def test_sweep_that_is_killed_goes_on_without_redoing_anything(tmp_path: Path, stage: str) -> None:
    calls = tmp_path / "calls"
    process = started(tmp_path)
    wait_until(lambda: results(tmp_path, stage) >= 2)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(runs, pids(calls))))
    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        kept = finished(POINTS, store)

    sweep(tmp_path)

    assert sum(result.built is not None for result in kept) >= 2
    for result in kept:
        assert result.built is None or calls_of(calls, "build", result.point) == 1
        assert result.timed is None or calls_of(calls, "time", result.point) == 1
        assert calls_of(calls, "build", result.point) <= 2
    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        assert {result.status for result in finished(POINTS, store)} == {"done"}


def test_workers_and_what_they_started_end_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    process = started(tmp_path, "slow")
    wait_until(lambda: calls_of(tmp_path / "calls", "child", SLOW) == 1)

    process.kill()
    process.wait()

    wait_until(lambda: not any(map(runs, pids(tmp_path / "calls"))))


def test_interrupt_stops_workers_and_keeps_what_is_finished(tmp_path: Path) -> None:
    process = started(tmp_path, "slow")
    wait_until(lambda: calls_of(tmp_path / "calls", "child", SLOW) == 1 and results(tmp_path, "built") == 6)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it as well

    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert out == b"", "what workers print on stdout belongs on stderr"
    assert b"noise of a library" in err and b"Traceback" not in err
    assert not any(map(runs, pids(tmp_path / "calls")))
    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        assert [result.built for result in finished(POINTS, store)] == list(map(built, POINTS))


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peak", "available", "cores", "jobs"),
    [
        pytest.param(2 * GIB, 9 * GIB, 16, 4, id="memory decides"),
        pytest.param(1 * GIB, 64 * GIB, 3, 3, id="cores decide"),
        pytest.param(8 * GIB, 4 * GIB, 2, 1, id="one always runs"),
    ],
)
def test_jobs_that_fit(peak: int, available: int, cores: int, jobs: int) -> None:
    assert jobs_that_fit(peak, available, cores) == jobs
