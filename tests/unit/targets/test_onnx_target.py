"""What the ONNX target writes: the shipped model, the probe in memory, weights beyond protobuf."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from exporter.errors import TargetUnavailableError, UsageError
from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from exporter.targets import Artifact, target
from exporter.targets.onnx.options import OnnxOptions
from tests.support.compiled import captured_family
from tests.support.families import family
from tests.support.tiny_vit import request_of

REQUEST = request_of(OnnxOptions(), metadata={"name": "tiny", "method": "tome", "exporter": "1.2.3"})


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

    outputs = artifact.probe({"images": images.numpy()})
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
    monkeypatch.setattr("exporter.targets.onnx.save._EXTERNAL_ABOVE_BYTES", 1000)
    images = family("timm_vit").images().numpy()

    outputs = emit(program, tmp_path).runner(images)

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.onnx", "model.onnx.data"]
    np.testing.assert_allclose(outputs["logits"], program(torch.from_numpy(images))[0].numpy(), atol=1e-4)
    stored = onnx.load(str(tmp_path / "out/model.onnx"), load_external_data=False)
    entries = [entry for each in stored.graph.initializer for entry in each.external_data]
    assert {entry.value for entry in entries if entry.key == "location"} == {"model.onnx.data"}


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_missing_provider_is_said_before_anything_is_built(
    provider: Any, program: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.targets.onnx.emit.build", pytest.fail)
    request = replace(REQUEST, options=OnnxOptions(provider=provider))

    with pytest.raises(TargetUnavailableError, match="pip install onnxruntime-gpu"):
        target("onnx").emit(program, request, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_integers_that_tensorrt_does_not_read_are_refused(
    program: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.targets.onnx.emit.check_provider", lambda options: None)
    request = replace(
        REQUEST,
        options=OnnxOptions(provider="tensorrt"),
        precision="int8",
        calibration=family("timm_vit").images().numpy(),
    )

    with pytest.raises(UsageError, match="onnx.activations: .*expected int8, got uint8"):
        target("onnx").emit(program, request, tmp_path)


def test_int8_without_calibration_images_is_refused_before_anything_is_built(
    program: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.targets.onnx.emit.build", pytest.fail)
    with pytest.raises(UsageError, match="calibration image"):
        target("onnx").emit(program, replace(REQUEST, precision="int8"), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_half_precision_computes_what_the_typed_program_computes(tmp_path: Path) -> None:
    program = captured_family("timm_vit").compile(ScheduleRequest(r=4), precision="fp16")
    images = family("timm_vit").images()
    expected, *matches = program(images)

    artifact = target("onnx").emit(program, replace(REQUEST, precision="fp16"), tmp_path)
    assert artifact.probe is not None
    probed = artifact.probe({"images": images.numpy()})

    np.testing.assert_allclose(artifact.runner(images.numpy())["logits"], expected.numpy(), atol=1e-2)
    for index, match in enumerate(matches):
        np.testing.assert_array_equal(probed[f"match_{index}"], match.numpy())
    sizes = Counter[int]()
    for each in onnx.load(str(tmp_path / "model.onnx")).graph.initializer:
        sizes[each.data_type] += int(np.prod(each.dims))
    assert sizes[onnx.TensorProto.FLOAT16] > 10 * sizes[onnx.TensorProto.FLOAT]


def test_description_names_providers_and_what_becomes_of_bfloat16() -> None:
    said = target("onnx").describe()

    assert "CPUExecutionProvider" in said and "bf16 on the CPU" in said
