"""The driver with a builder and workers that only pretend: every failure has a reason, and the budget holds."""

import json
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.errors import TargetUnavailableError, UsageError
from exporter.records import to_tree
from tests.unit.benchmark.contenders import pretending
from tests.unit.tools.gpu_check_cases import contender, write_pretender
from tools.gpu import drive
from tools.gpu.drive import Check, JobResult, Settings, run
from tools.gpu.jobs import BASELINE, LISTS, TINY

RUN = [[way.name for way in job.ways if not way.graph] for job in TINY]
"""Without CUDA graphs, which a dry run on a CPU leaves out."""

EAGER, TRT = 0, 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "ROUND_MS", 0.0)
    monkeypatch.setattr(drive, "ROUNDS", 1)


def settings(folder: Path, script: dict[str, str], **changes: Any) -> Settings:
    np.save(folder / "images-tiny-2.npy", np.zeros((2, 3, 32, 32), np.float32))
    names = [[way.name for way in job.ways] for job in TINY]
    pretended = json.dumps({"names": names, "contender": to_tree(contender("any")), **script})
    fields = {"jobs": "tiny", "device": "cpu", "budget_s": 600.0, "work": folder, **changes}
    return Settings(
        builder=(sys.executable, "-S", "-E", str(write_pretender(folder)), pretended),
        worker=pretending(folder),
        **fields,
    )


def check(folder: Path, **script: str) -> Check:
    return run(settings(folder, script), lambda _: None)


def timed(result: JobResult) -> list[str]:
    return [each.contender.name for each in result.race.measurements] if result.race is not None else []


def test_every_contender_of_the_list_is_raced_and_the_caller_hears_after_every_job(tmp_path: Path) -> None:
    told: list[Check] = []

    found = run(settings(tmp_path, {}), told.append)

    assert found.finished and found.machine == {"device": "pretended"}
    assert [timed(result) for result in found.jobs] == RUN
    assert [(len(each.jobs), each.finished) for each in told] == [(1, False), (2, False), (2, True)]


@pytest.mark.parametrize(
    ("end", "reason"), [("fails", "no compiler here"), ("dies", "status 3: out of luck")]
)
def test_contender_that_is_not_built_keeps_its_reason_and_the_others_are_raced(
    end: str, reason: str, tmp_path: Path
) -> None:
    lost = RUN[EAGER][1]

    result = run(replace(settings(tmp_path, {lost: end}), only=("eager",)), lambda _: None).jobs[EAGER]

    assert reason in result.failed[lost]
    assert timed(result) == [name for name in RUN[EAGER] if name != lost]


def test_baseline_alone_is_not_raced(tmp_path: Path) -> None:
    result = check(tmp_path, **dict.fromkeys(RUN[TRT][1:], "fails")).jobs[TRT]

    assert result.race is None and "nothing was built" in result.reason
    assert list(result.facts) == [BASELINE.name]


def test_jobs_that_do_not_fit_into_the_time_left_or_are_not_asked_for_have_the_reason(tmp_path: Path) -> None:
    seconds = count(step=1)  # every look at the clock takes a second

    late = run(settings(tmp_path, {}, budget_s=22.0), lambda _: None, lambda: float(next(seconds)))
    asked = run(settings(tmp_path, {}, only=("nothing", "trt")), lambda _: None)

    assert [result.reason.split(":")[0] for result in late.jobs] == ["no time", "no time"]
    assert [result.reason for result in asked.jobs] == ["not asked for", ""]


def test_asking_for_no_job_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--only"):
        settings(tmp_path, {}, only=("nothing",))


def test_missing_device_is_one_line_and_not_a_result(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailableError, match="no GPU here"):
        check(tmp_path, absent="no GPU here")


@pytest.mark.parametrize("name", LISTS)
def test_names_are_unique_so_that_no_result_hides_another(name: str) -> None:
    jobs = LISTS[name]

    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        assert len({way.name for way in job.ways}) == len(job.ways)


def test_full_list_covers_what_the_check_promises() -> None:
    jobs = LISTS["full"]
    kinds = {
        kind: {way.merging for job in jobs for way in job.ways if way.kind == kind}
        for kind in ("program", "compile", "aoti", "onnx", "trt", "torch-trt")
    }

    assert {(job.model, job.batch) for job in jobs} == {
        (model, batch) for model in ("vit_b", "vit_l", "clip_l") for batch in (1, 8, 64, 256)
    }
    assert all("dense" in mergings and len(mergings) > 1 for mergings in kinds.values())
    assert kinds["program"] >= {"r8", "r13", "r16", "r7", "keep .95", "keep .95 pitome"}
    assert {(job.model, job.batch) for job in jobs[:4]} == {("vit_b", 64), ("vit_b", 1)}
