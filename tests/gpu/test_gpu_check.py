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
    """The quick list."""
    return run_check(tmp_path_factory.mktemp("eager"), "tiny", "3")


def job(tree: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [each for each in tree["jobs"] if each["name"] == name]
    assert found["reason"] == "" and found["failed"] == {} and found["bench"]["unavailable"] == []
    assert all(facts["parity"]["cosine"] > 0.99 for facts in found["facts"].values())
    return found


def test_contenders_run_on_the_gpu_launched_and_replayed(eager: dict[str, Any]) -> None:
    found = job(eager, "eager tiny b2")

    timed = {each["name"]: each for each in found["bench"]["contenders"]}
    assert {"model dense fp16", "program r4 fp16", "program r4 fp16 graph"} <= set(timed)
    assert timed["program r4 fp16"]["peak_memory_bytes"] > 0
    assert found["facts"]["program r4 fp16"]["kernels"]
    assert eager["machine"]["compute_capability"]
    assert eager["finished"]


def test_compiled_contenders_and_engines_run(tmp_path: Path) -> None:
    tree = run_check(tmp_path, "tiny-compiled", "6")

    assert [job(tree, name)["name"] for name in ("compile tiny b2", "aoti tiny b2")]
