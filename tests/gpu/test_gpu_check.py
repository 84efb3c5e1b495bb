"""The GPU check itself on a GPU: the model that ships, through everything that needs no large library."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools.gpu_check import main


def run_check(folder: Path, jobs: str, minutes: str) -> dict[str, Any]:
    assert main(["--out", str(folder), "--jobs", jobs, "--minutes", minutes]) == 0
    tree: dict[str, Any] = json.loads((folder / "gpu_check.json").read_text(encoding="utf-8"))
    return tree


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The quick list, in half a minute and what it takes to start."""
    return run_check(tmp_path_factory.mktemp("eager"), "tiny", "0.75")


def entries(tree: dict[str, Any], job: str) -> dict[str, Any]:
    (found,) = [each for each in tree["jobs"] if each["name"] == job]
    return {entry["name"]: entry for entry in found["entries"]}


@pytest.mark.parametrize("name", ["model dense fp16", "program dense fp16", "program r4 fp16"])
@pytest.mark.parametrize("replay", ["", " graph"])
def test_contenders_run_on_the_gpu_launched_and_replayed(
    eager: dict[str, Any], name: str, replay: str
) -> None:
    entry = entries(eager, "eager tiny b2")[name + replay]

    assert entry["state"] == "timed", entry["reason"]
    assert entry["facts"]["parity"]["cosine"] > 0.99


def test_memory_clocks_and_kernels_are_read(eager: dict[str, Any]) -> None:
    assert entries(eager, "eager tiny b2")["program r4 fp16"]["facts"]["peak_memory_bytes"] > 0
    assert entries(eager, "kernels tiny b2")["program r4 fp16"]["kernels"]
    assert eager["machine"]["compute_capability"]
    assert eager["finished"]


def test_compiled_contenders_run_launched_and_replayed(tmp_path: Path) -> None:
    tree = run_check(tmp_path, "tiny-compiled", "4")

    for job in tree["jobs"]:
        for entry in job["entries"]:
            assert entry["state"] == "timed", f"{entry['name']}: {entry['reason']}"
            assert entry["facts"]["parity"]["cosine"] > 0.99
