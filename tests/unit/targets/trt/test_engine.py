"""Engines that fit neither TensorRT nor GPU nor model, damaged ones, and weights that are put into engines."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporter.errors import BundleError, TargetUnavailableError, UsageError
from exporter.targets.trt import device, engine
from exporter.targets.trt.device import Device
from exporter.targets.trt.files import ENGINE, ONNX, RECORD
from exporter.targets.trt.options import TrtOptions
from tests.support.hand_made_onnx import write_doubling
from tests.unit.targets.trt.conftest import HOPPER, build_runner, open_runner, use_version
from tests.unit.targets.trt.recording import Disorder, World

pytestmark = pytest.mark.usefixtures("world")


def rows(count: int) -> Any:
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2)


def test_stripped_engine_gets_its_weights_back(tmp_path: Path, world: World) -> None:
    runner = build_runner(tmp_path, 2, strip_plan=True)

    np.testing.assert_array_equal(runner(rows(2))["doubled"], 2 * rows(2))
    assert "OnnxParserRefitter.refit_from_file" in world.calls


def test_stripped_engine_without_its_weights_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "refit", lambda *_: None)

    with pytest.raises(Disorder, match="without its weights"):
        build_runner(tmp_path, 2, strip_plan=True)(rows(2))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    runner = build_runner(tmp_path, 2, strip_plan=True)
    write_doubling(tmp_path / ONNX, 3)

    with pytest.raises(BundleError, match=r"model_trt\.onnx: expected the model that the engine was built"):
        runner.load()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    runner = build_runner(tmp_path, 2, strip_plan=True)
    (tmp_path / ONNX).unlink()

    with pytest.raises(BundleError, match=r"model_trt\.onnx: expected beside the stripped engine"):
        runner.load()


def test_refitters_complaint_is_quoted(tmp_path: Path, world: World) -> None:
    runner = build_runner(tmp_path, 2, strip_plan=True)
    world.refit_error = "initializer w has another size"

    with pytest.raises(BundleError, match=r"another size; 1 weights are missing, block_00/weight"):
        runner.load()


def test_weights_are_replaced_in_an_engine_built_for_that(tmp_path: Path) -> None:
    runner = build_runner(tmp_path, 2, refit=True)
    model = onnx.load(tmp_path / ONNX)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full(2, 3, np.float32), "w"))
    onnx.save(model, tmp_path / "other.onnx")

    runner.refit(tmp_path / "other.onnx")

    np.testing.assert_array_equal(runner(rows(2))["doubled"], 2 * rows(2) + 3)


def test_engine_of_another_tensorrt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = build_runner(tmp_path, 2)
    use_version("11.5.0.1", monkeypatch)

    with pytest.raises(TargetUnavailableError) as caught:
        runner.load()

    assert str(caught.value) == (
        "model.engine: built with another TensorRT: expected 11.4.0.106, got 11.5.0.1; build it again on this "
        "machine, from the recipe or from model_trt.onnx (trt.version_compatible lets later versions run an engine)"
    )


@pytest.mark.parametrize("version", ["11.4.0.106", "11.4.1.2", "11.10.0.1"])
def test_version_compatible_engine_runs_on_later_versions(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = build_runner(tmp_path, 2, version_compatible=True)
    use_version(version, monkeypatch)

    np.testing.assert_array_equal(runner(rows(2))["doubled"], 2 * rows(2))


def test_version_compatible_engine_is_refused_by_earlier_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = build_runner(tmp_path, 2, version_compatible=True)
    use_version("11.3.9.9", monkeypatch)

    with pytest.raises(TargetUnavailableError, match=r"expected 11\.4\.0\.106 or later, got 11\.3\.9\.9"):
        runner.load()


def test_host_code_needs_leave(tmp_path: Path) -> None:
    build_runner(tmp_path, 2, version_compatible=True)

    with pytest.raises(UsageError, match=r"holds host code; expected trt\.version_compatible: true"):
        open_runner(tmp_path, 2, TrtOptions()).load()


H100 = replace(HOPPER, name="NVIDIA H100")
A100 = Device(name="NVIDIA A100", capability=(8, 0), place="cpu")
BLACKWELL = Device(name="NVIDIA B200", capability=(10, 0), place="cpu")
TURING = Device(name="NVIDIA T4", capability=(7, 5), place="cpu")


@pytest.mark.parametrize(
    ("level", "other", "words"),
    [
        ("none", H100, r"expected NVIDIA H200 \(compute capability 9\.0\), got NVIDIA H100"),
        ("none", A100, r"got NVIDIA A100 \(compute capability 8\.0\).*trt\.hardware_compatibility"),
        ("same_compute_capability", BLACKWELL, r"expected compute capability 9\.0, got NVIDIA B200"),
        ("ampere_plus", TURING, r"expected compute capability 8\.0 or newer, got NVIDIA T4"),
    ],
)
def test_engine_of_another_gpu_is_refused(
    tmp_path: Path, level: str, other: Device, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = build_runner(tmp_path, 2, hardware_compatibility=level)
    monkeypatch.setattr(device, "current_device", lambda: other)

    with pytest.raises(TargetUnavailableError, match=words):
        runner.load()


@pytest.mark.parametrize(
    ("level", "other"),
    [("same_compute_capability", H100), ("ampere_plus", A100), ("ampere_plus", BLACKWELL)],
)
def test_engine_runs_on_the_gpus_that_it_was_built_for(
    tmp_path: Path, level: str, other: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = build_runner(tmp_path, 2, hardware_compatibility=level)
    monkeypatch.setattr(device, "current_device", lambda: other)

    np.testing.assert_array_equal(runner(rows(2))["doubled"], 2 * rows(2))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "cannot be read: No such file", id="missing"),
        pytest.param(b"", "cannot load it.*Serialization", id="empty"),
        pytest.param(b"no engine at all", "cannot load it.*Serialization", id="other"),
    ],
)
def test_file_that_is_no_engine_is_a_damaged_bundle(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    runner = build_runner(tmp_path, 2)
    (tmp_path / ENGINE).unlink()
    if content is not None:
        (tmp_path / ENGINE).write_bytes(content)

    with pytest.raises(BundleError, match=rf"model\.engine: .*{words}"):
        runner.load()


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"identity": {"colour": "red"}}'])
def test_engine_of_unknown_origin_is_a_damaged_bundle(tmp_path: Path, text: str | None) -> None:
    runner = build_runner(tmp_path, 2)
    (tmp_path / RECORD).unlink()
    if text is not None:
        (tmp_path / RECORD).write_text(text)

    with pytest.raises(BundleError, match=r"model_trt\.json: expected what model\.engine was built from"):
        runner.load()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param("no JSON", id="text"),
        pytest.param('{"colour": "red"}', id="unknown option"),
        pytest.param('{"builder_level": 9}', id="impossible"),
        pytest.param('{"hardware_compatibility": "all"}', id="unknown level"),
    ],
)
def test_engine_of_impossible_options_is_a_damaged_bundle(tmp_path: Path, options: str) -> None:
    runner = build_runner(tmp_path, 2)
    record = json.loads((tmp_path / RECORD).read_text())
    record["identity"]["options"] = options
    (tmp_path / RECORD).write_text(json.dumps(record))

    with pytest.raises(BundleError, match=r"model_trt\.json: expected what model\.engine was built from"):
        runner.load()


def test_engine_of_another_model_is_a_damaged_bundle(tmp_path: Path) -> None:
    runner = build_runner(tmp_path, 2)
    (images,) = runner.signature.inputs
    runner.signature = replace(runner.signature, inputs=(replace(images, name="pixels"),))

    with pytest.raises(
        BundleError, match="expected input pixels .* got an engine of images, doubled, centred"
    ):
        runner.load()


def test_no_memory_for_a_context_is_said(tmp_path: Path, world: World) -> None:
    runner = build_runner(tmp_path, 2)
    world.context_refused = True

    with pytest.raises(TargetUnavailableError, match=r"makes no execution context on NVIDIA H200"):
        runner.load()


def test_tensorrt_that_cannot_start_says_why(tmp_path: Path, world: World) -> None:
    runner = build_runner(tmp_path, 2)
    world.start_error = "6: CUDA initialization failure with error: 35"

    with pytest.raises(TargetUnavailableError, match="cannot start: 6: CUDA"):
        runner.load()


def test_record_says_what_the_engine_was_built_from(tmp_path: Path) -> None:
    build_runner(tmp_path, 2, strip_plan=True)

    identity = json.loads((tmp_path / RECORD).read_text())["identity"]

    assert identity["onnx_sha256"] == hashlib.sha256((tmp_path / ONNX).read_bytes()).hexdigest()
    assert identity["tensorrt"] == "11.4.0.106"
    assert identity["compute_capability"] == "9.0"
    assert json.loads(identity["options"])["strip_plan"] is True
    assert str(tmp_path) not in (tmp_path / RECORD).read_text()
