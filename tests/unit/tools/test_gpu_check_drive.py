"""The driver with workers that only pretend: every failure has a reason, nothing waits for it, the budget holds."""

import json
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import BundleError, TargetUnavailableError, UsageError
from tests.unit.tools.gpu_check_cases import NAMES, entry, pretender, write_list
from tools.gpu import drive
from tools.gpu.drive import Check, Result, Settings, run


def settings(folder: Path, script: dict[str, str], **changes: Any) -> Settings:
    """Over one entry of each kind, in the order of `NAMES`."""
    write_list(folder, *map(entry, NAMES))
    fields: dict[str, Any] = {"device": "cpu", "budget_s": 600.0, **changes}
    return Settings(prepared=folder, work=folder, worker=pretender(folder, json.dumps(script)), **fields)


def told(given: Settings, **clock: Any) -> list[tuple[Check, Result]]:
    found: list[tuple[Check, Result]] = []
    run(given, lambda check, latest: found.append((check, latest)), **clock)
    return found


def reasons(given: Settings, **clock: Any) -> dict[str, str]:
    check, _ = told(given, **clock)[-1]
    return {result.entry.contender.kind: result.reason for result in check.results}


def test_everything_is_timed_and_the_caller_hears_after_every_contender(tmp_path: Path) -> None:
    found = told(settings(tmp_path, {}))

    timed = [sum(bool(result.rounds) for result in check.results) for check, _ in found]
    assert timed == [1, 2, 3, 4]
    check, latest = found[0]
    assert check.machine == {"device": "pretended"}
    assert latest.rounds == ((2.0, 2.0), (2.0, 2.0)) and latest.facts["right"]
    assert [result.reason for result in check.results] == ["", "not reached", "not reached", "not reached"]


@pytest.mark.parametrize(
    ("script", "lost", "reason"),
    [
        pytest.param({"1 load": "fails"}, "program", "no compiler here", id="fails"),
        pytest.param({"1 time": "dies"}, "program", "status 3: out of luck", id="dies"),
        pytest.param({"2 build": "fails"}, "aoti", "no compiler here", id="is not built"),
        pytest.param({"2 build": "dies"}, "aoti", "status 3: out of luck", id="kills its builder"),
    ],
)
def test_contender_that_fails_keeps_its_reason_and_the_others_are_timed(
    script: dict[str, str], lost: str, reason: str, tmp_path: Path
) -> None:
    found = reasons(settings(tmp_path, script))

    assert reason in found.pop(lost)
    assert set(found.values()) == {""}


def test_kernels_are_compiled_beside_the_timing_on_a_gpu_and_not_on_a_cpu(tmp_path: Path) -> None:
    for device, reason in (("cuda", "no compiler here"), ("cpu", "")):
        given = settings(tmp_path, {"0 build": "fails"}, device=device)
        write_list(tmp_path, entry("program", merge="kernels"))

        assert reasons(given) == {"program": reason}


def test_times_are_kept_where_kernels_cannot_be_listed(tmp_path: Path) -> None:
    given = settings(tmp_path, {"kernels": "dies"})
    write_list(tmp_path, entry(listed=True), entry("onnx"))

    listed, other = told(given)[-1][0].results

    assert listed.rounds and "out of luck" in listed.facts["kernels_failed"]
    assert other.reason == ""


def test_contender_that_hangs_is_killed_at_its_limit_and_the_others_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "LIMIT_S", {"cpu": 0.5})

    found = reasons(settings(tmp_path, {"1 load": "hangs"}))

    assert 'no answer to "load"' in found.pop("program")
    assert set(found.values()) == {""}


def test_what_is_still_being_built_waits_behind_what_is_ready(tmp_path: Path) -> None:
    given = settings(tmp_path, {"2 build": "hangs"})
    began = time.monotonic()

    def clock() -> float:
        return (time.monotonic() - began) * 300  # 2 s are the whole budget

    order = [latest for _, latest in told(given, clock=clock)]

    assert order[-1].entry.contender.kind == "aoti" and "no time" in order[-1].reason
    assert [each.entry.contender.kind for each in order[:-1]] == ["library", "program", "onnx"]


def test_contenders_that_do_not_fit_into_the_time_left_have_the_reason(tmp_path: Path) -> None:
    seconds = count(step=1)  # every look at the clock takes a second

    found = reasons(settings(tmp_path, {}, budget_s=5.0), clock=lambda: float(next(seconds)))

    assert all(reason.startswith("no time") for reason in found.values())


def test_what_is_not_available_is_listed_with_its_reason_and_only_what_is_asked_for(tmp_path: Path) -> None:
    given = settings(tmp_path, {}, only=("onnx", "b1 "))
    write_list(tmp_path, entry("library"), entry("onnx", missing="no such form"), entry(batch=1))

    assert reasons(given) == {"onnx": "no such form", "program": ""}


def test_nothing_to_run_or_no_device_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--only"):
        told(settings(tmp_path, {}, only=("nothing",)))
    with pytest.raises(TargetUnavailableError, match="no GPU here"):
        told(settings(tmp_path, {"machine": "refuses"}))
    (tmp_path / "plan.json").unlink()
    with pytest.raises(BundleError, match="gpu_check prepare"):
        run(Settings(prepared=tmp_path, device="cpu", budget_s=1.0, work=tmp_path), lambda *_: None)
