"""The GPU check itself on a GPU: a tiny model, through everything that needs no large library."""

import json
from typing import Any

import pytest
import torch

from tools.gpu_check import JSON, main

OLDEST_WITH_FP8 = (8, 9)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By name, what became of each contender."""
    folder = tmp_path_factory.mktemp("check")
    prepared, out = folder / "prepared", folder / "results"
    assert main(["prepare", str(prepared), "--models", "tiny"]) == 0
    assert main(["run", str(prepared), "--out", str(out), "--minutes", "6"]) == 0
    tree = json.loads((out / JSON).read_text(encoding="utf-8"))
    assert tree["machine"]["compute_capability"]
    return {each["name"].removeprefix("tiny b2 "): each for each in tree["contenders"]}


@pytest.mark.parametrize("name", ["library dense fp16", "library dense fp16 graph"])
def test_library_is_timed_launched_and_replayed(ran: dict[str, Any], name: str) -> None:
    assert ran[name]["reason"] == "" and ran[name]["summary"]["median_ms"] > 0


@pytest.mark.parametrize("kind", ["program operators", "program kernels", "aoti"])
@pytest.mark.parametrize("merging", ["dense", "r4"])
def test_contenders_are_timed_and_right(ran: dict[str, Any], kind: str, merging: str) -> None:
    found = ran[f"{kind} {merging} fp16 graph"]

    assert found["reason"] == "" and found["facts"]["right"]


@pytest.mark.parametrize("merging", ["dense", "r4"])
def test_products_in_8_bits_are_right_where_the_gpu_has_them(ran: dict[str, Any], merging: str) -> None:
    if torch.cuda.get_device_capability() < OLDEST_WITH_FP8:
        pytest.skip("needs a GPU of compute capability 8.9 or newer")
    found = ran[f"program kernels {merging} fp8 graph"]

    assert found["reason"] == "" and found["facts"]["right"]


def test_kernels_of_a_reduced_program_are_listed_by_block(ran: dict[str, Any]) -> None:
    kernels = ran["program operators r4 fp16 graph"]["facts"]["kernels"]

    assert {("block_00", "products"), ("block_00", "attention")} <= {
        (each["block"], each["group"]) for each in kernels
    }
