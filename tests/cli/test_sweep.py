"""`sweep`: killed in the middle and started again, with points that cannot be built."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporter.bundle import load_bundle
from exporter.sweep import Conditions, SweepRecord, front_names, open_store, read_record
from tests.cli.commands import ROOT, TINY, Outcome, refused, run
from tests.support.pretended_race import DENSE_MS, REDUCED_MS

AXES = ("--r", "0,2", "--target", "onnx,trt")
QUICK = ("--jobs", "1", "--threads", "1", "--processes", "2", "--rounds", "1")
BUILT = ("dense-fp32-onnx", "tome-constant-r2-fp32-onnx")
FAILED = ("dense-fp32-trt", "tome-constant-r2-fp32-trt")


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A sweep that was killed, and started again: what was finished in between, and how it ended."""

    folder: Path
    finished: dict[str, tuple[int, bytes]]
    outcome: Outcome

    @property
    def record(self) -> SweepRecord:
        return read_record(self.folder)


@pytest.fixture(scope="module")
def resumed(labelled_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    scratch = tmp_path_factory.mktemp("race")
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    words = ("sweep", *TINY, *AXES, *QUICK, "--data", str(labelled_folder), "--out", str(folder), "--quiet")
    command = [sys.executable, "-m", "tests.support.pretended_race", str(scratch), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as process:
        _wait_for_a_result(folder, process)
        os.killpg(process.pid, signal.SIGKILL)
    finished = _finished(folder)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    outcome = Outcome(status=done.returncode, out=done.stdout, err=done.stderr)
    return Resumed(folder=folder, finished=finished, outcome=outcome)


def _wait_for_a_result(folder: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not list((folder / "points").glob("[!.]*.built.json")):
        assert process.poll() is None, "the sweep ended without a result"
        assert time.monotonic() < deadline, "the sweep got stuck"
        time.sleep(0.01)


def _finished(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Results, and the manifests of the bundles that stand whole: when they were written, and what they say."""
    paths = [*(folder / "points").glob("[!.]*.json"), *(folder / "bundles").glob("[!.]*/manifest.json")]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_what_was_finished_is_not_done_again(resumed: Resumed) -> None:
    now = _finished(resumed.folder)
    results = [name for name in resumed.finished if name.startswith("points/")]

    assert 1 <= len(results) < 2 * len(BUILT)
    for name in (*results, "bundles/dense-fp32-onnx/manifest.json"):
        assert now[name] == resumed.finished[name]


def test_sweep_ends_with_every_point(resumed: Resumed) -> None:
    status = {result.name: result.status for result in resumed.record.points}

    assert status == dict.fromkeys(BUILT, "done") | dict.fromkeys(FAILED, "failed")
    assert resumed.record.complete


def test_bundles_of_a_sweep_verify(resumed: Resumed) -> None:
    for name in BUILT:
        assert load_bundle(resumed.folder / "bundles" / name).manifest.artifacts.keys() == {"onnx"}
    assert sorted(path.name for path in (resumed.folder / "bundles").iterdir()) == sorted(BUILT)
    assert run("validate", resumed.folder / "bundles" / BUILT[1], "--quiet").status == 0


def test_points_that_cannot_be_built_decide_the_status(resumed: Resumed) -> None:
    """And the line that says so is all there is: no semaphores, say, that killed workers left behind."""
    failures = [result.failure for result in resumed.record.points if result.failure is not None]

    assert [(failure.stage, failure.exit_status) for failure in failures] == [("build", 7)] * 2
    assert (resumed.outcome.status, resumed.outcome.out) == (7, "")
    assert "2 of 4 points failed" in resumed.outcome.complaint
    assert "trt" in resumed.outcome.complaint


def test_speed_is_that_of_the_race(resumed: Resumed) -> None:
    points = {result.name: result for result in resumed.record.points}
    dense, reduced = (points[name] for name in BUILT[:2])

    assert dense.speedup is None
    assert dense.images_per_s == pytest.approx(1000 / DENSE_MS, rel=0.02)
    assert dense.images_per_s is not None
    assert reduced.speedup is not None
    assert reduced.speedup.value == pytest.approx(DENSE_MS / REDUCED_MS, rel=0.02)
    assert reduced.images_per_s == pytest.approx(dense.images_per_s * reduced.speedup.value, rel=1e-6)


def test_quality_is_measured_on_the_images(resumed: Resumed) -> None:
    points = {result.name: result for result in resumed.record.points}
    fidelity = points["dense-fp32-onnx"].quality.fidelity

    assert fidelity is not None
    assert (fidelity.n, fidelity.top1_agreement) == (6, 100.0)
    assert fidelity.cosine_mean == pytest.approx(1, abs=1e-5)
    accuracy = points["dense-fp32-onnx"].quality.accuracy
    assert accuracy is not None
    assert accuracy.n == 6
    assert resumed.record.quality_measure == "top1"
    assert resumed.record.front == front_names(resumed.record.points, "top1") != ()


def test_report_of_a_sweep(resumed: Resumed) -> None:
    outcome = run("report", resumed.folder, "--json")

    assert outcome.status == 0, outcome.err
    assert outcome.document == {
        "html": str(resumed.folder / "report.html"),
        "markdown": str(resumed.folder / "report.md"),
    }
    for name in BUILT:
        assert name in (resumed.folder / "report.md").read_text(encoding="utf-8")
    assert "expected a bundle" in refused(2, "report", resumed.folder, "--image", "photo.jpg")


def test_folder_that_is_swept_already(tmp_path: Path) -> None:
    with open_store(tmp_path / "sweep", Conditions(building={}, timing={})):
        complaint = refused(2, "sweep", *TINY, "--r", "0", "--out", tmp_path / "sweep")

    assert f"process {os.getpid()}" in complaint


def test_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")

    assert "not the folder of a sweep" in refused(2, "sweep", *TINY, "--r", "0", "--out", tmp_path)


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        pytest.param([], "neither", id="nothing"),
        pytest.param(["--r", "0", "--processes", "1"], "--processes", id="launches"),
        pytest.param(["--r", "0", "--precision", "fp17"], "--precision", id="precision"),
        pytest.param(["--min-speedup", "1"], "--min-speedup", id="speedup"),
        pytest.param(["--max-drop", "1"], "--data", id="goal without images"),
    ],
)
def test_what_cannot_be_swept_leaves_no_folder(words: list[str], fact: str, workplace: Path) -> None:
    assert fact in refused(2, "sweep", *TINY, *words)
