"""The kernels compiled for real GPUs, on a machine without any; and how many launches a program has."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LEAST_SHARED_MEMORY = 99 * 1024
"""Bytes that one program may take on compute capability 8.6, 8.9 and 12.0 (CUDA C++ Programming Guide, table of
technical specifications)."""

KERNELS = {
    "add_norm_kernel", "attention_kernel", "best_partner_kernel", "deal_kernel", "energy_kernel",
    "list_tome_kernel", "merge_kernel", "rank_kernel",
}  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("inductor"))
    finished = subprocess.run(
        [sys.executable, "-m", "tests.support.compile_kernels"],
        cwd=Path(__file__).parents[3],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def test_every_kernel_compiles_and_fits_the_smallest_gpus(said: dict[str, Any]) -> None:
    assert {name.partition("/")[0] for name in said["shared"]} == KERNELS
    assert {name: size for name, size in said["shared"].items() if size > LEAST_SHARED_MEMORY} == {}


def test_a_merging_block_has_two_launches_more_than_a_dense_one(said: dict[str, Any]) -> None:
    dense, merging = said["launches"]["dense"], said["launches"]["tome"]

    assert dense["block_01"]["kernel"] == 2  # a residual sum with its norm each
    for block in ("block_00", "block_01", "block_02"):
        assert sum(merging[block].values()) - sum(dense[block].values()) == 2


def test_aoti_package_calls_the_kernels_itself(said: dict[str, Any]) -> None:
    """What Inductor does not know, a package calls through Python's operators: `python` counts such calls."""
    calls = said["package"]

    assert "python" not in calls
    for name in ("best_partner_kernel", "list_tome_kernel", "merge_kernel", "attention_kernel"):
        assert calls[name] == 3, name  # three blocks merge, and three have sizes
    assert calls["add_norm_kernel"] >= 4  # one in every block, and what follows an MLP
