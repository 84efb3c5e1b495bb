"""Several engines, one that cannot be built, one that is prepared; and the lint, as users run them."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from exporter.targets.openvino.library import shared_core
from tests.cli.commands import TINY, manifest, refused, run

pytestmark = [
    pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino is not installed"),
    pytest.mark.skipif(
        find_spec("tensorrt") is not None, reason="TensorRT is installed, and would be built for"
    ),
]


@pytest.fixture(scope="module")
def several(saved_program: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """A bundle of two engines and one that is not here: its folder, what was said, and the status."""
    out = tmp_path_factory.mktemp("several") / "bundle"
    outcome = run(saved_program, "--r", "4", "--target", "onnx,trt,openvino", "--out", out, "--quiet")
    return out, outcome.err, outcome.status


def test_engine_that_is_not_here_is_said_and_the_others_are_in_the_bundle(
    several: tuple[Path, str, int],
) -> None:
    out, said, status = several

    assert status == 7
    assert [line for line in said.splitlines() if line.startswith("error: ")] == said.splitlines()
    assert 'pip install "exporter[trt]"' in said
    assert set(manifest(out)["artifacts"]) == set(manifest(out)["parity"]) == {"onnx", "openvino"}
    assert manifest(out)["toolchain"].keys() >= {"onnxruntime", "openvino"}


def test_bundle_of_several_engines_validates_each(several: tuple[Path, str, int]) -> None:
    out, _, _ = several

    document = run("validate", out, "--json").document

    assert {name: each["passed"] for name, each in document["parity"].items()} == {
        "onnx": True,
        "openvino": True,
    }


def test_engine_whose_library_is_missing_later_does_not_stop_the_others(
    several: tuple[Path, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _, _ = several
    monkeypatch.setitem(sys.modules, "openvino", None)
    shared_core.cache_clear()

    outcome = run("validate", out, "--json")

    assert outcome.status == 7
    assert set(outcome.document["parity"]) == {"onnx"}
    assert outcome.document["failed"]["openvino"]["status"] == 7


def test_prepared_bundle_holds_a_verified_model_and_what_builds_it_and_its_recipe_builds_it_again(
    saved_program: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    words = (saved_program, "--r", "4", "--target", "trt,aoti", "--precision", "fp16", "--prepare")

    outcome = run(*words, "--engine-option", "aoti.device=cuda", "--out", bundle, "--json")

    assert outcome.status == 0, outcome.err
    names = ["aoti-program", "trt-onnx"]
    assert sorted(outcome.document["artifacts"]) == names
    assert all(outcome.document["parity"][name]["passed"] for name in names)
    assert all(outcome.document["parity"][name]["cosine"] >= 0.999 for name in names)
    files = {path.name for path in bundle.iterdir()}
    assert files >= {"model_trt.onnx", "build_trt.py", "requirements_trt.txt", "lint_trt.json"}
    assert files >= {"model_aoti_program.pt2", "build_aoti.py", "requirements_aoti.txt"}
    assert run("validate", bundle, "--quiet").status == 0
    shutil.copy(bundle / "recipe.yaml", tmp_path)
    shutil.copy(saved_program, tmp_path)
    assert run("run", tmp_path / "recipe.yaml", "--out", tmp_path / "again", "--quiet").status == 0
    built = [manifest(tmp_path / name)["artifacts"] for name in ("bundle", "again")]
    assert [built[0][name]["sha256"] for name in names] == [built[1][name]["sha256"] for name in names]


def test_precision_that_an_engine_cannot_do_is_refused_with_those_that_it_can(saved_program: Path) -> None:
    complaint = refused(7, saved_program, "--r", "4", "--target", "aoti", "--precision", "int8")

    assert "expected precision fp32 or fp16 or bf16 or fp8, got int8" in complaint


def test_empty_calibration_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    words = (*TINY, "--r", "2", "--precision", "int8", "--calibration", tmp_path / "photos")

    complaint = refused(2, *words, "--out", tmp_path / "b")

    assert "calibration.data" in complaint
    assert "holds no images" in complaint
    assert not (tmp_path / "b").exists()


def test_lint_of_an_exported_model_ends_well(several: tuple[Path, str, int]) -> None:
    out, _, _ = several

    for engine in ("trt", "ort", "openvino"):
        assert run("lint", out / "model.onnx", "--for", engine, "--json").document["counts"]["error"] == 0


def test_lint_names_what_an_engine_refuses_and_has_a_status(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("TopK", ["scores", "count"], ["best", "places"], name="all_of_them")],
        "wide",
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5000])],
        [helper.make_tensor_value_info("best", TensorProto.FLOAT, [1, 4000])],
        [helper.make_tensor("count", TensorProto.INT64, [1], [4000])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(tmp_path / "wide.onnx"))

    outcome = run("lint", tmp_path / "wide.onnx", "--for", "trt", "--json")

    assert outcome.status == 4
    (finding,) = [each for each in json.loads(outcome.out)["findings"] if each["severity"] == "error"]
    assert (finding["rule"], finding["node"]) == ("trt-topk-k", "all_of_them")


def test_lint_of_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.onnx").write_text("not a model", encoding="utf-8")

    assert "notes.onnx" in refused(8, "lint", tmp_path / "notes.onnx", "--for", "ort")
    assert "none.onnx" in refused(2, "lint", tmp_path / "none.onnx", "--for", "ort")
