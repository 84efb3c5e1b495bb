"""The command from end to end on a CPU, with a tiny model: prepared without weights, run with drawn ones."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.errors import TargetUnavailableError
from exporter.models.pt2.archive import read_program
from tests.unit.tools.gpu_check_cases import entry, write_list
from tools.gpu import drive
from tools.gpu.packed import PROGRAM, extract
from tools.gpu.plan import Plan, read_plan
from tools.gpu.worker import compare
from tools.gpu_check import JSON, MARKDOWN, check_needed, main

VIEWS = ("slice", "sym_size", "expand", "view", "reshape", "alias", "_assert")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of a tiny model takes: eager PyTorch, ONNX Runtime, and a program for AOTInductor."""
    folder = tmp_path_factory.mktemp("prepared")
    wanted = "library,kernels r4 fp16,operators r4,onnx r4,aoti r4"
    assert main(["prepare", str(folder), "--models", "tiny", "--only", wanted]) == 0
    return folder


@pytest.fixture(scope="module")
def plan(prepared: Path) -> Plan:
    return read_plan(prepared)


@pytest.fixture(scope="module")
def ran(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By name, what became of each contender; and the page."""
    out = tmp_path_factory.mktemp("results")
    arguments = ["run", str(prepared), "--out", str(out), "--device", "cpu", "--minutes", "5"]
    assert main([*arguments, "--only", "library,program,onnx"]) == 0
    tree = json.loads((out / JSON).read_text(encoding="utf-8"))
    return {each["name"]: each for each in tree["contenders"]} | {"page": (out / MARKDOWN).read_text()}


def test_prepared_programs_hold_no_weights(prepared: Path, plan: Plan) -> None:
    weights = sum(torch.Size(each.shape).numel() for each in plan.models["tiny"].parameters.values())
    files = {each.file for each in plan.entries if each.file}

    assert len(files) == 4
    assert all((prepared / file).stat().st_size < weights * 2 / 5 for file in files)


def test_program_of_any_batch_launches_what_one_of_a_fixed_batch_does(
    prepared: Path, plan: Plan, tmp_path: Path
) -> None:
    def operators(kind: str) -> Counter[str]:
        (found,) = [
            each
            for each in plan.entries
            if each.contender.kind == kind and each.contender.merge != "operators"
        ]
        assert found.file is not None
        (tmp_path / kind).mkdir()
        assert extract(prepared / found.file, tmp_path / kind)["kernels"]
        graph = read_program(tmp_path / kind / PROGRAM)[0].graph
        names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
        return Counter(name for name in names if not any(view in name for view in VIEWS))

    assert operators("program") == operators("aoti")


def test_contenders_are_timed_and_compute_what_the_reference_does(ran: dict[str, Any]) -> None:
    timed = {name: each for name, each in ran.items() if each and name != "page"}

    assert {name.removeprefix("tiny b2 ") for name in timed} == {
        "library dense fp16", "library dense fp16 graph", "program kernels r4 fp16 graph",
        "program operators r4 fp16 graph", "onnx r4 fp16 graph",
    }  # fmt: skip
    assert all(each["reason"] == "" and each["summary"]["median_ms"] > 0 for each in timed.values())
    for name in ("program kernels r4 fp16 graph", "program operators r4 fp16 graph", "onnx r4 fp16 graph"):
        facts = timed[f"tiny b2 {name}"]["facts"]
        assert facts["right"] and 0 < facts["deviation"] < 0.05 and facts["cosine"] > 0.999


def test_kernels_are_listed_by_block_and_group(ran: dict[str, Any]) -> None:
    kernels = ran["tiny b2 program operators r4 fp16 graph"]["facts"]["kernels"]

    found = {(each["block"], each["group"]) for each in kernels}
    assert {("block_00", "attention"), ("block_00", "merging"), ("block_01", "products")} <= found
    assert ("block_01", "merging") not in found
    assert "## Kernels: tiny b2 program operators r4 fp16 graph" in ran["page"]


def test_wrong_output_is_seen() -> None:
    expected = torch.randn((8, 10), generator=torch.Generator().manual_seed(0)).numpy() + 5.0
    rounded, constant = expected + 0.001, expected.mean(0, keepdims=True).repeat(8, 0)

    assert compare([rounded], [expected], "fp16")["right"]
    assert compare([rounded[:3]], [expected], "fp16")["right"]
    wrong = compare([constant], [expected], "fp8")
    assert wrong["deviation"] == pytest.approx(1.0) and not wrong["right"]
    assert compare([expected * float("nan")], [expected], "fp8")["right"] is False


def test_run_that_is_cut_off_prints_the_table_up_to_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(tmp_path, entry("library", missing="not here"), entry("onnx"))

    def interrupted(self: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(drive._Driver, "_timing_process", lambda self: None)
    monkeypatch.setattr(drive._Driver, "_time", lambda self, place: interrupted(self))

    assert main(["run", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 130
    page = capsys.readouterr().out
    assert "- vit_b b64 library dense fp16 graph: not here" in page
    assert "- vit_b b64 onnx dense fp16 graph: not reached" in page
    assert json.loads((tmp_path / "out" / JSON).read_text(encoding="utf-8"))["contenders"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prepare", "{}", "--models", "vit_xxl"], "--models: expected some of"),
        (["prepare", "{}", "--only", "nothing"], "--only: expected parts of"),
        (["run", "{}", "--out", "{}", "--minutes", "0"], "--minutes: expected more than 0"),
    ],
)
def test_mistake_is_one_line_and_status_2(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([each.replace("{}", str(tmp_path)) for each in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(says)


def test_missing_module_is_named_with_its_package() -> None:
    with pytest.raises(TargetUnavailableError, match="needs some-package; pip install some-package"):
        check_needed({"json": "json", "no_such_module": "some-package"})
