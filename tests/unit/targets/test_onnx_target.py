"""What the ONNX target writes: the shipped model, the probe in memory, weights beyond protobuf."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from exporter.targets import Artifact, EmitRequest, TensorSpec, target
from tests.support.compiled import captured_family
from tests.support.families import family

REQUEST = EmitRequest(
    input=TensorSpec(name="images", dtype="float32", shape=(2, 3, 24, 24)),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=(2, 10)),),
    metadata={"name": "tiny", "method": "tome", "exporter": "1.2.3"},
)


@pytest.fixture(scope="module")
def program() -> RewrittenProgram:
    return captured_family("timm_vit").compile(ScheduleRequest(r=4))


def emit(program: RewrittenProgram, folder: Path) -> Artifact:
    (folder / "out").mkdir()
    return target("onnx").emit(program, REQUEST, folder / "out")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emitted")


@pytest.fixture(scope="module")
def artifact(program: RewrittenProgram, folder: Path) -> Artifact:
    return emit(program, folder)


def test_ships_the_model_alone(artifact: Artifact, folder: Path) -> None:
    model = onnx.load(str(folder / "out/model.onnx"))

    assert (artifact.target, artifact.file, artifact.opset) == ("onnx", "model.onnx", 20)
    assert [path.name for path in (folder / "out").iterdir()] == ["model.onnx"]
    assert [output.name for output in model.graph.output] == ["logits"]
    assert {entry.key: entry.value for entry in model.metadata_props} == dict(REQUEST.metadata)
    assert (model.graph.name, model.producer_name, model.producer_version) == ("tiny", "exporter", "1.2.3")


def test_probe_returns_the_matches_as_well(program: RewrittenProgram, artifact: Artifact) -> None:
    assert artifact.probe is not None
    images = family("timm_vit").images()

    outputs = artifact.probe(images.numpy())
    expected = program(torch.as_tensor(images))

    assert list(outputs) == ["logits", *(f"match_{index}" for index in range(len(program.merging_blocks)))]
    for got, wanted in zip(list(outputs.values())[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(got, wanted.numpy())


def test_dense_programs_need_no_probe(tmp_path: Path) -> None:
    dense = captured_family("timm_vit").compile(ScheduleRequest(r=0))

    assert emit(dense, tmp_path).probe is None


def test_large_weights_lie_beside_the_model(
    program: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.targets.onnx.emit._EXTERNAL_ABOVE_BYTES", 1000)
    images = family("timm_vit").images().numpy()

    outputs = emit(program, tmp_path).runner(images)

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.onnx", "model.onnx.data"]
    np.testing.assert_allclose(outputs["logits"], program(torch.from_numpy(images))[0].numpy(), atol=1e-4)
    stored = onnx.load(str(tmp_path / "out/model.onnx"), load_external_data=False)
    entries = [entry for each in stored.graph.initializer for entry in each.external_data]
    assert {entry.value for entry in entries if entry.key == "location"} == {"model.onnx.data"}
