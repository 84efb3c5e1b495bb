"""Preparing an engine on a machine without TensorRT: the files, and the proof of the model before it travels."""

import ast
import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporter.errors import ParityError, UnsupportedGraphError, UsageError
from exporter.lint import lint
from exporter.rewrite import RewrittenProgram
from exporter.targets import Artifact, EmitRequest, find_target
from exporter.targets.build_script import dependencies
from exporter.targets.trt.options import TrtOptions
from exporter.targets.trt.prepare import write_script
from exporter.validation import TOLERANCES, require, run_eager, verify
from tests.support.families import family
from tests.support.package_index import ROOT
from tests.support.tiny_vit import request_of
from tests.unit.targets.trt import pretended_cuda, stand_in
from tests.unit.targets.trt.prepared import prepared_folder, run_script, write_proof
from tests.unit.targets.trt.real_bindings import VERSIONS, Bindings, bindings
from tests.unit.targets.trt.recording import World

REQUEST = request_of(
    TrtOptions(timing_cache="/somewhere/kernels.cache", builder_level=4, cuda_graph=True),
    metadata={"name": "tiny"},
)

FILES = ["build_trt.py", "lint_trt.json", "model_trt.onnx", "requirements_trt.txt"]


@pytest.fixture(scope="module")
def images() -> Any:
    return family("timm_vit").images(2).numpy()


def prepare(program: RewrittenProgram, folder: Path, request: EmitRequest = REQUEST) -> Artifact:
    prepared = find_target("trt").prepared
    assert prepared is not None and prepared.emit is not None
    return prepared.emit(program, request, folder)


def prove_it(program: RewrittenProgram, artifact: Artifact, images: Any, precision: Any = "fp32") -> Any:
    return verify(
        program, artifact, run_eager(program, {"images": {"images": images}}), TOLERANCES[precision]
    )


@pytest.fixture(scope="module")
def made(program: RewrittenProgram, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    """Prepared once, where TensorRT is not installed."""
    folder = tmp_path_factory.mktemp("bundle")
    return prepare(program, folder), folder


def script_of(folder: Path) -> str:
    return (folder / "build_trt.py").read_text(encoding="utf-8")


def recipe_of(folder: Path) -> Any:
    """The literal at the top of the script."""
    (found,) = [
        node.value
        for node in ast.parse(script_of(folder)).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "RECIPE"
    ]
    assert found is not None
    return ast.literal_eval(found)


def test_model_is_proven_by_onnx_runtime_before_it_travels(
    program: RewrittenProgram, made: tuple[Artifact, Path], images: Any
) -> None:
    artifact, folder = made

    proof = prove_it(program, artifact, images)

    assert proof.shortfalls == []
    assert proof.match_agreement == (1.0,) * len(program.merging_blocks)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert (artifact.target, artifact.file) == ("trt-onnx", "model_trt.onnx")
    assert artifact.opset == onnx.load(folder / "model_trt.onnx").opset_import[0].version


def test_another_model_is_not_proven(program: RewrittenProgram, images: Any, tmp_path: Path) -> None:
    artifact = prepare(program, tmp_path)
    model = onnx.load(tmp_path / "model_trt.onnx")
    for initializer in model.graph.initializer:
        array = onnx.numpy_helper.to_array(initializer)
        if array.dtype == np.float32 and array.ndim == 2:
            initializer.CopyFrom(onnx.numpy_helper.from_array(array * 1.01, initializer.name))
    onnx.save(model, tmp_path / "model_trt.onnx")

    with pytest.raises(ParityError, match="parity: target trt-onnx"):
        require(prove_it(program, artifact, images), artifact.target, "fp32")


def test_lint_goes_along(made: tuple[Artifact, Path]) -> None:
    artifact, folder = made
    report = lint(folder / "model_trt.onnx", "trt", device="cuda")
    counts: dict[str, Any] = {"engine": "trt", "device": "cuda"}

    assert json.loads((folder / "lint_trt.json").read_text()) == json.loads(json.dumps(report.to_tree()))
    assert artifact.details == {"lint": counts | dict(report.counts)}


def test_model_that_tensorrt_would_refuse_is_not_prepared(
    program: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exporter.targets.trt import model as room

    def save(model: Any, path: Path) -> None:
        shape = onnx.helper.make_tensor_value_info
        double = onnx.TensorProto.DOUBLE
        node = onnx.helper.make_node("Det", ["x"], ["y"], name="volume")
        graph = onnx.helper.make_graph(
            [node], "g", [shape("x", double, [2, 3, 3])], [shape("y", double, [2])]
        )
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), path)

    monkeypatch.setattr(room, "save", save)

    with pytest.raises(UnsupportedGraphError, match="^target trt: trt-"):
        prepare(program, tmp_path)


def test_options_are_in_the_script_and_paths_are_not(made: tuple[Artifact, Path]) -> None:
    _, folder = made
    recipe = recipe_of(folder)

    assert recipe["options"]["builder_level"] == 4
    assert set(recipe["options"]) == set(asdict(TrtOptions())) - {"timing_cache", "cuda_graph"}
    assert (recipe["input"], recipe["outputs"], recipe["batches"]) == ("images", ["logits"], [2])
    assert recipe["samples"] == ["sample-trt-onnx.npz", "sample.npz"]
    assert recipe["attention"] == 4
    for name in FILES:
        text = (folder / name).read_bytes().decode("utf-8", "replace")
        assert not [path for path in (folder, ROOT, Path.home(), "/somewhere") if str(path) in text], name


def test_profile_is_in_the_script(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path / "bundle", "batch", min_batch=1, opt_batch=8, max_batch=16)

    assert recipe_of(folder)["batches"] == [1, 8, 16]


def test_profile_that_excludes_the_batch_is_refused(program: RewrittenProgram, tmp_path: Path) -> None:
    options = TrtOptions(min_batch=1, opt_batch=2, max_batch=4)

    with pytest.raises(UsageError, match="the program is fixed to batch 2"):
        prepare(program, tmp_path, replace(REQUEST, options=options))


def test_int8_is_quantised_around_zero_and_runs_here(program: RewrittenProgram, tmp_path: Path) -> None:
    images = family("timm_vit").images(4).numpy()

    artifact = prepare(program, tmp_path, replace(REQUEST, precision="int8", calibration=images))

    assert prove_it(program, artifact, images[:2], "int8").shortfalls == []
    graph = onnx.load(tmp_path / "model_trt.onnx").graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    zeros = [
        constants[node.input[2]]
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2
    ]
    assert len(zeros) > 0 and all(zero.dtype == np.int8 and not zero.any() for zero in zeros)


@pytest.mark.parametrize("text", ['a"b\\c\n', "grün ☃ 𝄞", "a  b"])
def test_names_of_any_letters_reach_the_script_unchanged(tmp_path: Path, text: str) -> None:
    recipe = {"outputs": [text], "options": {"nothing": None, "yes": True, "level": 3}}

    write_script(tmp_path, recipe)

    assert recipe_of(tmp_path) == recipe


def test_script_stands_alone(made: tuple[Artifact, Path]) -> None:
    script = script_of(made[1])
    tree = ast.parse(script)
    modules = [
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    ]

    assert set(modules) - set(sys.stdlib_module_names) == {"numpy"}
    assert re.findall(r'load_library\("(.+)"\)', script) == ["cuda.bindings.runtime", "tensorrt"]
    compile(script, "build_trt.py", "exec")


def test_versions_are_those_that_are_tested(made: tuple[Artifact, Path]) -> None:
    _, folder = made
    tested = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))

    pinned = [line.split("==") for line in (folder / "requirements_trt.txt").read_text().splitlines()]

    assert pinned == [
        ["tensorrt", VERSIONS[-1]],
        ["cuda-bindings", tested["cuda-bindings"]],
        ["numpy", tested["numpy"]],
    ]
    assert dependencies(script_of(folder)) == ["==".join(each) for each in pinned]


def test_script_builds_and_verifies_the_prepared_model(
    program: RewrittenProgram,
    images: Any,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    prepare(program, folder)
    (expected,) = run_eager(program, {"images": {"images": images}})["images"].outputs
    write_proof(folder, images=images, logits=expected.numpy())
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", pretended_cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in)

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "engine")) == 0


@pytest.fixture(scope="module", params=[VERSIONS[0], VERSIONS[-1]])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    return bindings(request.param, tmp_path_factory.mktemp("natives"))


def test_script_runs_through_the_real_dispatch(real: Bindings, tmp_path: Path) -> None:
    free = {"min_batch": 1, "opt_batch": 2, "max_batch": 4}
    stripped = {"strip_plan": True, "hardware_compatibility": "ampere_plus"}
    further = {"workspace_mb": 64, "version_compatible": True, "refit": True}
    zeros = np.zeros((2, 2), np.float32)  # which is what nobody writes
    prepared_folder(tmp_path / "further", "batch", zeros, **free, **further)
    prepared_folder(tmp_path / "stripped", "batch", zeros, **free, **stripped)

    done = real.run("dispatch_prepared.py", str(tmp_path / "further"), str(tmp_path / "stripped"))

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    missing = found["ends"]["without"].pop("stripped")
    assert found["ends"] == {
        "whole": {"further": "0", "stripped": "0"},
        "refused": {"further": "4", "stripped": "4"},
        "without": {"further": "0"},
    }
    assert missing.startswith("AttributeError: ") and "'OnnxParserRefitter'" in missing
    assert {"Refitter.refit_cuda_engine", "IExecutionContext.execute_async_v3"} <= set(found["reached"])
