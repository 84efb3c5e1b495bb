"""The files, the page and the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.errors import TargetUnavailableError
from tests.unit.tools.gpu_check_cases import baseline, job, timed
from tools.gpu.figures import rows
from tools.gpu.machine import check_needed
from tools.gpu.results import Check, JobResult, to_json, write
from tools.gpu.table import page
from tools.gpu.verdicts import verdicts
from tools.gpu_check import main

DENSE = timed("trt", "dense", window_ms=2.0, latency_ms=3.0, executed_macs=200)
FACTS: dict[str, Any] = {
    "parity": {"cosine": 0.9995, "max_abs_error": 0.01, "magnitude": 3.0, "passed": True},
    "peak_memory_bytes": 256 * 2**20,
    "engine": {"attention": "attention fused 11/12"},
}
REDUCED = replace(timed("trt", "r13", window_ms=1.0, latency_ms=2.0, executed_macs=125), facts=FACTS)
KERNELS = ({"name": "gemm|128x64", "calls": 2.0, "us": 10.0, "share": 1.0},)
LISTED = replace(baseline(), name="program r13 fp16", state="listed", rounds=(), kernels=KERNELS)


def shown(*jobs: JobResult, **known: Any) -> str:
    settings: dict[str, Any] = {
        "machine": {"device": "NVIDIA H200", "nvidia_smi": {"driver_version": "580.1"}, "torch": "2.11.0"},
        "budget_s": 570.0,
        "seconds": 12.0,
        "finished": True,
    }
    check = Check(jobs=jobs, **(settings | known))
    figures = rows(jobs)
    return page(check, figures, verdicts(figures))


def test_page_names_the_machine_and_shows_every_figure_of_a_row() -> None:
    text = shown(job(baseline(4.0), DENSE, REDUCED))
    (line,) = [line for line in text.splitlines() if line.startswith("| ViT-B/16 | 64 | trt r13")]

    assert "NVIDIA H200" in text and "driver 580.1" in text and "PyTorch 2.11.0" in text
    for cell in (
        "64000",
        "4.00 (",
        "2.00 (",
        "| 1.60 |",
        "1.25 (",
        "| 256 |",
        "0.99950",
        "attention fused 11/12",
    ):
        assert cell in line


def test_page_says_what_did_not_run_and_why() -> None:
    absent = replace(DENSE, state="failed", reason="TensorRT is not installed", rounds=())
    late = job(replace(REDUCED, state="not run", reason="no time", rounds=()), reason="no time")

    text = shown(job(absent), late, finished=False)

    assert "- some job, trt dense fp16: TensorRT is not installed" in text
    assert "- some job: no time" in text
    assert "not to the end of the list" in text
    assert "**not run**" in text


def test_page_warns_of_an_engine_that_computes_something_else() -> None:
    wrong = replace(REDUCED, facts=FACTS | {"parity": FACTS["parity"] | {"cosine": 0.7, "passed": False}})

    assert "cosine below the default" in shown(job(baseline(), DENSE, wrong))
    assert "cosine below the default" not in shown(job(baseline(), DENSE, REDUCED))


def test_page_lists_kernels_without_breaking_its_tables() -> None:
    text = shown(job(LISTED))

    assert "| `gemm\\|128x64` | 2 | 10.0 | 100.0% |" in text


def test_document_holds_the_raw_samples_and_what_is_derived(tmp_path: Path) -> None:
    path = tmp_path / "gpu_check.json"
    check = Check(machine={}, budget_s=1.0, seconds=1.0, finished=True, jobs=(job(DENSE),))

    write(path, to_json(check, {"targets": []}))
    tree = json.loads(path.read_text(encoding="utf-8"))

    assert tree["jobs"][0]["entries"][0]["rounds"][0]["latency_ms"] == [3.0, 3.0, 3.0]
    assert tree["targets"] == []
    assert [each.name for each in tmp_path.iterdir()] == ["gpu_check.json"]


def test_missing_package_is_one_line_with_both_ways_to_get_it() -> None:
    with pytest.raises(TargetUnavailableError, match="needs a-package; pip install a-package") as refused:
        check_needed({"a_module_that_is_nowhere": "a-package", "json": "json"})

    assert "--no-index" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_command_refuses_a_machine_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--out", str(tmp_path / "out")])

    assert status == 7
    assert "needs an NVIDIA GPU" in capsys.readouterr().err


def test_command_refuses_a_budget_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--minutes", "0"]) == 2
    assert "--minutes" in capsys.readouterr().err
