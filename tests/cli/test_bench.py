"""`bench`: who races, what is saved, and what is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from exporter.benchmark import RaceOptions, WarmUp
from exporter.bundle import load_bundle
from exporter.pipeline import racing
from tests.cli.commands import ROOT, TINY, Build, refused, run, tree
from tests.support.pretended_race import DENSE_MS, REDUCED_MS, PretendedRace

Document = dict[str, Any]
IMPATIENT = WarmUp(window_calls=2, window_ms=0.0, tolerance=1e9, most_ms=1e6)
QUICK = ("--processes", "2", "--rounds", "1", "--no-compile", "--threads", "1")


@pytest.fixture
def race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretendedRace:
    """Races with workers that pretend."""
    folder = tmp_path / "race"
    folder.mkdir()
    return PretendedRace(folder, monkeypatch)


@pytest.fixture
def dense(build: Build) -> Path:
    """The dense bundle; a race that it takes part in compiles no dense engine of its own."""
    return build(*TINY, "--r", "0")


@pytest.fixture
def copy(build: Build, tmp_path: Path) -> Path:
    """A reduced bundle that a test may change, alone in its folder."""
    folder = tmp_path / "place" / "copy"
    shutil.copytree(build(*TINY, "--r", "2"), folder)
    return folder


def names(document: Document, batch: int = 1) -> list[str]:
    return [each["name"] for each in document["contenders"] if each["batch"] == batch]


def value(document: Document, name: str, batch: int = 1) -> float:
    (found,) = [
        each["value"] for each in document["ratios"] if (each["name"], each["batch"]) == (name, batch)
    ]
    return float(found)


# One real race --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raced(build: Build, tmp_path_factory: pytest.TempPathFactory) -> tuple[Document, Path]:
    """A bundle that takes bytes, raced for real by workers with an empty home; the JSON document and the bundle."""
    folder, home = tmp_path_factory.mktemp("raced") / "bytes", tmp_path_factory.mktemp("home")
    shutil.copytree(build(*TINY, "--r", "2", "--input", "uint8", "--layout", "nhwc"), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(racing, "RaceOptions", partial(RaceOptions, min_round_ms=1.0, warm_up=IMPATIENT))
        patch.setenv("HOME", str(home))
        outcome = run("bench", folder, *QUICK, "--json")
    assert outcome.status == 0, outcome.err
    assert list(home.iterdir()) == []
    assert outcome.err == ""
    return outcome.document, folder


def test_bundle_of_bytes_races_with_all_its_contenders(raced: tuple[Document, Path]) -> None:
    document, _ = raced

    assert names(document) == ["eager dense", "dense onnx", "tome-r2 onnx", "eager tome-r2"]
    assert document["unavailable"] == []


def test_document_keeps_the_contract(raced: tuple[Document, Path]) -> None:
    document, folder = raced

    for each in document["contenders"]:
        assert each.keys() >= {
            "name",
            "samples_ms",
            "median_ms",
            "p90_ms",
            "p99_ms",
            "images_per_s",
            "peak_memory_bytes",
        }
        assert min(each["samples_ms"]) <= each["median_ms"] <= each["p90_ms"] <= each["p99_ms"]
        assert each["peak_memory_bytes"] > 1 << 20
    assert len(document["ratios"]) == 4
    for each in document["ratios"]:
        assert 0 < each["interval"][0] <= each["value"] <= each["interval"][1] < float("inf")
    assert document["merge_efficiency"].keys() == {"onnx"}
    assert document["merge_efficiency"]["onnx"] > 0
    assert document["bundles"] == [str(folder)]


def test_race_is_saved_in_a_bundle_that_still_verifies(raced: tuple[Document, Path]) -> None:
    document, folder = raced
    saved = json.loads((folder / "bench.json").read_text(encoding="utf-8"))

    assert "bench.json" in load_bundle(folder).manifest.files
    assert saved["contenders"] == document["contenders"]
    assert saved["ratios"] == document["ratios"]
    assert [path.name for path in folder.parent.iterdir()] == ["bytes"]


# Who races ------------------------------------------------------------------------------------------


def test_eager_model_gets_floats_where_engines_take_bytes(build: Build, race: PretendedRace) -> None:
    bundle = build(*TINY, "--r", "2", "--input", "uint8", "--layout", "nhwc")

    assert run("bench", bundle, *QUICK, "--no-save", "--quiet").status == 0

    assert "(1, 3, 64, 64)" in race.inputs["eager dense", 1]
    assert "<f4" in race.inputs["eager dense", 1]
    for name in ("dense onnx", "tome-r2 onnx", "eager tome-r2"):
        assert "(1, 64, 64, 3)" in race.inputs[name, 1]
        assert "|u1" in race.inputs[name, 1]


def test_ratios_are_those_of_the_times(copy: Path, race: PretendedRace) -> None:
    document = run("bench", copy, *QUICK, "--json").document
    dense, reduced = (load_bundle(copy).manifest.gmacs.dense, load_bundle(copy).manifest.gmacs.executed)
    (efficiency,) = document["efficiencies"]

    assert value(document, "tome-r2 onnx / dense onnx") == pytest.approx(DENSE_MS / REDUCED_MS, rel=0.02)
    assert value(document, "dense onnx / eager dense") == pytest.approx(2, rel=0.02)
    assert 1 < efficiency["macs_ratio"] <= dense / reduced
    expected = DENSE_MS / REDUCED_MS / efficiency["macs_ratio"]
    assert document["merge_efficiency"]["onnx"] == pytest.approx(expected, rel=0.02)


def test_without_eager_there_are_engines_only(copy: Path, dense: Path, race: PretendedRace) -> None:
    document = run("bench", dense, copy, *QUICK, "--no-eager", "--no-save", "--json").document

    assert names(document) == ["dense onnx", "tome-r2 onnx"]
    assert [each["name"] for each in document["ratios"]] == ["tome-r2 onnx / dense onnx"]


def test_on_cuda_pytorch_races_with_and_without_a_graph(copy: Path, dense: Path, race: PretendedRace) -> None:
    document = run("bench", dense, copy, *QUICK, "--device", "cuda", "--no-save", "--json").document

    found = names(document)
    assert {"eager dense", "eager dense, graph", "eager tome-r2", "eager tome-r2, graph"} <= set(found)
    graphs = {each.contender["name"]: each.contender["cuda_graph"] for each in race.started}
    assert {name for name, graph in graphs.items() if graph} == {"eager dense, graph", "eager tome-r2, graph"}


def test_dense_bundle_races_against_eager_pytorch(dense: Path, race: PretendedRace) -> None:
    document = run("bench", dense, *QUICK, "--no-save", "--json").document

    assert names(document) == ["eager dense", "dense onnx"]
    assert document["merge_efficiency"] == {}


def test_several_bundles_are_told_apart(build: Build, copy: Path, dense: Path, race: PretendedRace) -> None:
    pitome = build(*TINY, "--r", "2", "--method", "pitome")

    outcome = run("bench", copy, dense, pitome, *QUICK, "--no-save", "--json")

    assert set(names(outcome.document)) == {
        "eager dense",
        "tome-r2 onnx",
        "dense onnx",
        "pitome-r2 onnx",
        "eager tome-r2",
        "eager pitome-r2",
    }
    assert outcome.document["merge_efficiency"].keys() == {"tome-r2 onnx", "pitome-r2 onnx"}


def test_bundles_that_merge_alike_are_told_apart_by_their_paths(
    copy: Path, dense: Path, race: PretendedRace
) -> None:
    twin = copy.parent / "other" / copy.name
    shutil.copytree(copy, twin)

    outcome = run("bench", dense, copy, twin, *QUICK, "--no-save", "--no-eager", "--json")

    assert outcome.status == 0, outcome.err
    assert names(outcome.document) == [f"{path} onnx" for path in (dense, copy, twin)]


def test_text_tower_races(build: Build, race: PretendedRace) -> None:
    document = run("bench", build("clip_digits", "--tower", "text"), *QUICK, "--no-save", "--json").document

    assert names(document) == ["eager dense", "dense onnx"]
    assert "<i8" in race.inputs["dense onnx", 1]


# Batch sizes ----------------------------------------------------------------------------------------


def test_static_bundle_is_built_again_for_other_batches(copy: Path, race: PretendedRace) -> None:
    outcome = run("bench", copy, "--batch", "1,2", *QUICK, "--json")

    assert outcome.status == 0, outcome.err
    engines = {
        (each.contender["name"], each.contender["batch"]): each.contender["engine"]
        for each in race.started
        if each.contender["engine"]
    }
    assert engines["tome-r2 onnx", 1]["path"] == str(copy / "model.onnx")
    assert engines["tome-r2 onnx", 2]["path"] != str(copy / "model.onnx")
    assert engines["tome-r2 onnx", 2]["signature"]["inputs"][0]["shape"] == [2, 3, 64, 64]
    assert not Path(engines["tome-r2 onnx", 2]["path"]).exists()
    assert "(2, 3, 64, 64)" in race.inputs["eager tome-r2", 2]
    assert names(outcome.document, 2) == names(outcome.document, 1)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_dynamic_bundle_races_as_it_is_at_every_batch(build: Build, race: PretendedRace) -> None:
    bundle = build(*TINY, "--r", "2", "--dynamic-batch")

    outcome = run("bench", bundle, "--batch", "1,2", *QUICK, "--no-save", "--no-eager", "--json")

    assert outcome.status == 0, outcome.err
    paths = {
        each.contender["batch"]: each.contender["engine"]["path"]
        for each in race.started
        if each.contender["name"] == "tome-r2 onnx"
    }
    assert paths == dict.fromkeys((1, 2), str(bundle / "model.onnx"))
    assert "(1, 3, 64, 64)" in race.inputs["tome-r2 onnx", 1]
    assert "(2, 3, 64, 64)" in race.inputs["tome-r2 onnx", 2]


# Refusals -------------------------------------------------------------------------------------------


def test_bundle_of_another_model(build: Build, copy: Path, race: PretendedRace) -> None:
    complaint = refused(2, "bench", copy, build("clip_digits", "--tower", "text"), *QUICK)

    assert "expected the same model" in complaint
    assert race.started == []


def test_same_bundle_twice(copy: Path) -> None:
    assert "twice" in refused(2, "bench", copy, copy.parent / "." / copy.name, *QUICK)


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        pytest.param(["--batch", "0"], "--batch", id="batch"),
        pytest.param(["--batch", "one"], "--batch", id="no number"),
        pytest.param(["--processes", "1"], "--processes", id="launches"),
        pytest.param(["--rounds", "0"], "--rounds", id="rounds"),
        pytest.param(["--threads", "9999"], "threads", id="threads"),
    ],
)
def test_options_that_no_race_can_be_held_with(copy: Path, words: list[str], fact: str) -> None:
    assert fact in refused(2, "bench", copy, *words)


def test_damaged_bundle(copy: Path) -> None:
    (copy / "model.onnx").write_bytes(b"damaged")

    assert "model.onnx" in refused(8, "bench", copy, *QUICK)


def test_nothing_that_can_be_timed_here(dense: Path, race: PretendedRace) -> None:
    race.break_down("eager dense", "dense onnx")

    assert "no such library here" in refused(7, "bench", dense, *QUICK, "--no-save")


def test_engine_that_cannot_be_timed_is_said_and_no_save_leaves_the_bundle_alone(
    copy: Path, dense: Path, race: PretendedRace
) -> None:
    race.break_down("tome-r2 onnx")
    before = tree(copy.parent)

    outcome = run("bench", copy, dense, *QUICK, "--no-save")

    assert outcome.status == 0, outcome.err
    assert "not timed: tome-r2 onnx" in outcome.out
    assert tree(copy.parent) == before


# The gate of a recipe -------------------------------------------------------------------------------


def test_too_slow_leaves_no_bundle(workplace: Path, race: PretendedRace) -> None:
    complaint = refused(6, *TINY, "--r", "2", "--min-speedup", "100")

    assert "tome-r2 onnx" in complaint
    assert f"{DENSE_MS / REDUCED_MS:.2f}x" in complaint
    assert "100" in complaint


def test_fast_enough_is_in_the_bundle(tmp_path: Path, race: PretendedRace) -> None:
    outcome = run(*TINY, "--r", "2", "--min-speedup", "0.001", "--out", tmp_path / "made", "--quiet")

    assert outcome.status == 0, outcome.err
    assert "bench.json" in load_bundle(tmp_path / "made").manifest.files


def test_dense_model_cannot_be_faster_than_itself(workplace: Path, race: PretendedRace) -> None:
    assert "bench.min_speedup" in refused(2, *TINY, "--r", "0", "--min-speedup", "1.5")


# Ctrl-C ---------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_no_worker_and_no_folder(dense: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "place" / "bundle"
    shutil.copytree(dense, bundle)
    before = tree(bundle.parent)
    command = [sys.executable, "-m", "exporter", "bench", str(bundle), *QUICK, "--quiet"]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        workers = _workers(process.pid)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Traceback" not in err
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert tree(bundle.parent) == before


def _workers(parent: int) -> list[psutil.Process]:
    """Wait until a race is on."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := psutil.Process(parent).children(recursive=True):
            return found
        time.sleep(0.05)
    raise AssertionError("no worker was started")
