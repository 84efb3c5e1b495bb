"""Figures against times whose ratios are known; targets met, missed or not run; files, page and command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.errors import TargetUnavailableError
from tests.unit.tools.gpu_check_cases import PARITY, pair, raced
from tools.gpu.drive import Check, JobResult
from tools.gpu.figures import rows, verdicts
from tools.gpu.jobs import Way
from tools.gpu.page import page, to_json, write
from tools.gpu_check import check_needed, main


def test_ratios_and_efficiency_follow_from_their_definitions() -> None:
    row = rows([raced(*pair())])[-1]
    assert row.over_dense and row.over_baseline and row.efficiency

    assert row.summary.images_per_s == pytest.approx(64 / 1.25e-3)
    assert row.over_dense.value == pytest.approx(2.0 / 1.25)
    assert row.over_baseline.value == pytest.approx(4.0 / 1.25)
    assert row.macs_ratio == pytest.approx(200 / 125)
    assert row.efficiency.value == pytest.approx(1.0)


def test_dense_counterpart_is_of_the_same_kind_precision_and_replay() -> None:
    others = (
        (Way(kind="aoti"), 50.0, 200),
        (Way(kind="compile", precision="bf16"), 50.0, 200),
        (Way(kind="compile", graph=True), 50.0, 200),
    )

    row = rows([raced(*others, *pair())])[-1]

    assert row.over_dense is not None
    assert row.over_dense.value == pytest.approx(2.0 / 1.25)


def test_contenders_of_different_jobs_are_never_compared() -> None:
    baseline, dense, reduced = pair()

    row = rows([raced(baseline, dense), raced(baseline, reduced)])[-1]

    assert (row.over_dense, row.macs_ratio, row.efficiency) == (None, None, None)


ALL = "met", "met", "met"


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        pytest.param([], ("not run",) * 3, id="nothing"),
        pytest.param([raced(*pair()), raced(*pair(), batch=1)], ALL, id="as fast as its arithmetic"),
        pytest.param([raced(*pair(ms=1.4))], ("missed", "not run", "met"), id="efficiency 0.89"),
        pytest.param(
            [raced(*pair()), raced(*pair(ms=1.4), model="vit_l")],
            ("missed", "not run", "met"),
            id="one of two models",
        ),
        pytest.param([raced(*pair(ms=1.4), batch=8)], ("not run",) * 3, id="batch 8"),
        pytest.param([raced(*pair(ms=2.1), batch=1)], ("not run", "missed", "not run"), id="slower, batch 1"),
        pytest.param([raced(*pair(ms=2.1))], ("missed", "not run", "missed"), id="1.9x over eager"),
        pytest.param([raced(*pair("program"))], ("not run",) * 3, id="program that is launched"),
        pytest.param([raced(*pair("program", graph=True))], ("met", "not run", "met"), id="replayed"),
        pytest.param([raced(*pair("program", graph=True, precision="fp32"))], ("not run",) * 3, id="in fp32"),
    ],
)
def test_targets_are_demanded_of_reduced_engines(jobs: list[JobResult], expected: tuple[str, ...]) -> None:
    assert tuple(verdict.status for verdict in verdicts(rows(jobs))) == expected


def check(*jobs: JobResult, finished: bool = True) -> Check:
    machine = {"device": "NVIDIA H200", "cuda": "13.0", "torch": "2.11.0"}
    return Check(machine=machine, budget_s=570.0, seconds=12.0, finished=finished, jobs=jobs)


def shown(*jobs: JobResult, **known: Any) -> str:
    figures = rows(jobs)
    return page(check(*jobs, **known), figures, verdicts(figures))


def test_page_names_the_machine_and_shows_every_figure_of_a_row() -> None:
    text = shown(raced(*pair("trt", ms=1.0), facts={"engine": {"attention": "attention fused 11/12"}}))
    (line,) = [line for line in text.splitlines() if line.startswith("| some vit_b b64 | trt r13")]

    assert "NVIDIA H200" in text and "PyTorch 2.11.0" in text
    cells = ("64000", "4.00 (", "2.00 (", "| 1.60 |", "1.25 (", "| 256 |", "0.99950", "attention fused 11/12")
    assert [cell for cell in cells if cell not in line] == []


def test_page_says_what_did_not_run_and_why() -> None:
    result = raced(*pair())
    absent = replace(result, failed={"trt dense fp16": "TensorRT is not installed"})
    late = JobResult(job=replace(result.job, name="late"), reason="no time: 3 s were left")

    text = shown(absent, late, finished=False)

    assert "- some vit_b b64, trt dense fp16: TensorRT is not installed" in text
    assert "- late: no time" in text
    assert "not to the end of the list" in text


@pytest.mark.parametrize(
    ("facts", "warned"),
    [
        pytest.param({}, False, id="as it should be"),
        pytest.param({"parity": PARITY | {"cosine": 0.7, "passed": False}}, True, id="wrong"),
        pytest.param(
            {"parity": PARITY | {"passed": False}, "along_own_matches": PARITY}, False, id="a near-tie turned"
        ),
    ],
)
def test_page_warns_of_an_engine_that_computes_something_else(facts: dict[str, Any], warned: bool) -> None:
    assert ("cosine below the default" in shown(raced(*pair(), facts=facts))) is warned


def test_page_lists_kernels_without_breaking_its_tables() -> None:
    kernels = [{"name": "gemm|128x64", "calls": 2.0, "us": 10.0, "share": 1.0}]

    text = shown(raced(*pair(), facts={"kernels": kernels}))

    assert "| `gemm\\|128x64` | 2 | 10.0 | 100.0% |" in text


def test_document_holds_the_raw_samples_and_what_is_derived(tmp_path: Path) -> None:
    path = tmp_path / "gpu_check.json"

    write(path, to_json(check(raced(*pair())), verdicts([])))
    tree = json.loads(path.read_text(encoding="utf-8"))

    assert tree["jobs"][0]["bench"]["contenders"][0]["samples_ms"] == [4.0] * 24
    assert [each["status"] for each in tree["targets"]] == ["not run"] * 3
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
