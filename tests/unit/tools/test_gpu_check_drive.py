"""The driver with workers that only pretend: nothing is lost without a word, and the budget holds."""

import json
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import TargetUnavailableError, UsageError
from tests.unit.tools.gpu_check_cases import write_pretender
from tools.gpu.drive import Driver, Settings, run
from tools.gpu.jobs import LISTS, TINY
from tools.gpu.results import Check, JobResult

NAMES = [[contender.name for contender in job.contenders] for job in TINY]
EAGER, TRT = 0, 1
MODEL_PLACE, FIRST_PROGRAM = 0, 1


def settings(folder: Path, script: dict[str, str], budget_s: float = 60.0) -> Settings:
    pretended = json.dumps({"names": NAMES, **script})
    return Settings(
        jobs="tiny",
        device="cpu",
        budget_s=budget_s,
        work=folder,
        worker=(sys.executable, str(write_pretender(folder)), pretended),
    )


def check(folder: Path, **script: str) -> Check:
    return run(settings(folder, script), {}, lambda _: None)


def states(job: JobResult) -> dict[str, str]:
    return {entry.name: entry.state for entry in job.entries}


def test_every_contender_of_the_list_is_timed_or_listed(tmp_path: Path) -> None:
    found = check(tmp_path)

    assert found.finished and found.machine == {"device": "pretended"}
    assert [states(job) for job in found.jobs] == [
        dict.fromkeys(names, "listed" if job.purpose == "kernels" else "timed")
        for job, names in zip(TINY, NAMES, strict=True)
    ]
    assert [len(entry.rounds) for entry in found.jobs[EAGER].entries] == [6] * len(NAMES[EAGER])


def test_failed_contender_keeps_its_reason_and_the_others_are_timed(tmp_path: Path) -> None:
    job = check(tmp_path, **{f"{EAGER}.{FIRST_PROGRAM}": "fails"}).jobs[EAGER]

    assert job.entries[FIRST_PROGRAM].reason == "no compiler here"
    assert states(job) == dict.fromkeys(NAMES[EAGER], "timed") | {NAMES[EAGER][FIRST_PROGRAM]: "failed"}


@pytest.mark.parametrize("end", ["dies", "ruins"])
def test_contender_that_ends_its_process_is_left_out_and_the_others_are_timed_in_a_new_one(
    end: str, tmp_path: Path
) -> None:
    job = check(tmp_path, **{f"{EAGER}.{FIRST_PROGRAM}": end}).jobs[EAGER]

    assert states(job) == dict.fromkeys(NAMES[EAGER], "timed") | {NAMES[EAGER][FIRST_PROGRAM]: "failed"}
    assert job.entries[FIRST_PROGRAM].reason
    assert job.reason == ""


def test_baseline_is_not_timed_where_there_is_nothing_to_compare_it_with(tmp_path: Path) -> None:
    job = check(tmp_path, **{f"{TRT}.1": "fails", f"{TRT}.2": "fails"}).jobs[TRT]

    assert [entry.state for entry in job.entries] == ["not run", "failed", "failed"]


def test_rounds_before_a_death_are_kept(tmp_path: Path) -> None:
    job = check(tmp_path, rounds="die").jobs[EAGER]

    assert "ended with status 3" in job.reason
    assert [len(entry.rounds) for entry in job.entries] == [3] * len(NAMES[EAGER])


def test_jobs_that_do_not_fit_into_the_time_left_are_recorded_with_the_reason(tmp_path: Path) -> None:
    seconds = count(step=1)  # every look at the clock takes a second

    driver = Driver(settings(tmp_path, {}, budget_s=30.0), {}, lambda: float(next(seconds)))
    found = driver.run(lambda _: None)

    assert [job.name for job in found.jobs] == [job.name for job in TINY]
    assert found.jobs[-1].reason.startswith("no time")
    assert all(entry.state == "not run" and entry.reason for entry in found.jobs[-1].entries)


def test_jobs_that_were_not_asked_for_are_recorded_as_such(tmp_path: Path) -> None:
    asked = replace(settings(tmp_path, {}), only=("eager",))

    found = run(asked, {}, lambda _: None)

    assert [job.reason for job in found.jobs] == ["", *["not asked for"] * (len(TINY) - 1)]


def test_asking_for_no_job_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--only"):
        replace(settings(tmp_path, {}), only=("nothing",))


def test_caller_is_told_after_every_job(tmp_path: Path) -> None:
    told: list[Check] = []

    run(settings(tmp_path, {}), {}, told.append)

    assert [(len(each.jobs), each.finished) for each in told] == [
        *((number + 1, False) for number in range(len(TINY))),
        (len(TINY), True),
    ]


def test_missing_device_is_one_line_and_not_a_result(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailableError, match="no GPU here"):
        check(tmp_path, absent="no GPU here")


@pytest.mark.parametrize("name", LISTS)
def test_names_are_unique_so_that_no_result_hides_another(name: str) -> None:
    jobs = LISTS[name]

    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        assert len({contender.name for contender in job.contenders}) == len(job.contenders)


def test_full_list_covers_what_the_check_promises() -> None:
    jobs = LISTS["full"]
    pairs = {(job.model, job.batch) for job in jobs}
    kinds: dict[str, Any] = {
        kind: {each.merging for job in jobs for each in job.contenders if each.kind == kind}
        for kind in ("program", "compile", "aoti", "onnx", "trt", "torch-trt")
    }

    assert pairs == {(model, batch) for model in ("vit_b", "vit_l", "clip_l") for batch in (1, 8, 64, 256)}
    assert all("dense" in mergings and len(mergings) > 1 for mergings in kinds.values())
    assert kinds["program"] >= {"r8", "r13", "r16", "r7", "keep .95", "keep .95 pitome"}
    assert {(job.model, job.batch) for job in jobs[:4]} == {("vit_b", 64), ("vit_b", 1)}
