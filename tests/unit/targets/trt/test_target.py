"""The whole target over the recording stand-in: emit, prove, identify; and machines without TensorRT or a GPU."""

import hashlib
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from exporter.errors import ParityError, TargetUnavailableError, UsageError
from exporter.rewrite import RewrittenProgram
from exporter.targets import Artifact, find_target, target
from exporter.targets.trt import device, library, timing_cache
from exporter.targets.trt.options import TrtOptions
from exporter.validation import TOLERANCES, require, run_eager, verify
from tests.support.families import family
from tests.support.tiny_vit import request_of
from tests.unit.targets.trt.conftest import use_version
from tests.unit.targets.trt.recording import World

REQUEST = request_of(TrtOptions(), metadata={"name": "tiny", "exporter": "1.2.3"})

LAYERS = {
    "Layers": [
        {"Name": "gemm", "LayerType": "gemm", "TacticName": "sm90_xmma_gemm", "Metadata": ""},
        {
            "Name": "_gemm_mha_v2_myl0_17",
            "LayerType": "kgen",
            "TacticName": "_gemm_mha_v2_0x957a",
            "Metadata": "[ONNX Layer: block_00/MatMul_1][ONNX Layer: block_00/Softmax_24]",
        },
    ]
}


def emit(program: RewrittenProgram, folder: Path, **options: Any) -> Artifact:
    return target("trt").emit(program, replace(REQUEST, options=TrtOptions(**options)), folder)


def prove_it(program: RewrittenProgram, artifact: Artifact) -> Any:
    references = run_eager(program, {"images": {"images": family("timm_vit").images(2).numpy()}})
    return verify(program, artifact, references, TOLERANCES["fp32"])


def test_emitted_engine_is_proven_by_the_same_parity(
    program: RewrittenProgram, world: World, tmp_path: Path
) -> None:
    world.layers = json.dumps(LAYERS)
    cache = tmp_path / "kernels.cache"
    cache.write_bytes(b"before")
    (tmp_path / "out").mkdir()

    artifact = emit(program, tmp_path / "out", timing_cache=str(cache), strip_plan=True, builder_level=2)
    proof = prove_it(program, artifact)

    assert proof.shortfalls == []
    assert proof.match_agreement == (1.0,) * len(program.merging_blocks)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "model.engine",
        "model_trt.json",
        "model_trt.onnx",
    ]
    assert cache.read_bytes() == b"before+measured"
    onnx_sha256 = hashlib.sha256((tmp_path / "out" / "model_trt.onnx").read_bytes()).hexdigest()
    options = json.loads(artifact.built_from["options"])
    assert artifact.built_from == {
        "onnx_sha256": onnx_sha256,
        "options": artifact.built_from["options"],
        "tensorrt": "11.4.0.106",
        "compute_capability": "9.0",
        "device": "NVIDIA H200",
    }
    assert (options["strip_plan"], options["builder_level"], "timing_cache" in options) == (True, 2, False)
    assert artifact.details["attention"] == "attention fused 1/4"
    assert artifact.file == "model.engine"


def test_parity_fails_when_the_engine_is_of_another_model(
    program: RewrittenProgram, world: World, tmp_path: Path
) -> None:
    artifact = emit(program, tmp_path, refit=True)
    model = onnx.load(tmp_path / "model_trt.onnx")
    for initializer in model.graph.initializer:
        array = onnx.numpy_helper.to_array(initializer)
        if array.dtype == np.float32 and array.ndim == 2:
            initializer.CopyFrom(onnx.numpy_helper.from_array(array * 1.01, initializer.name))
    onnx.save(model, tmp_path / "other.onnx")

    artifact.runner.refit(tmp_path / "other.onnx")  # type: ignore[attr-defined]

    with pytest.raises(ParityError):
        require(prove_it(program, artifact), "trt", "fp32")


def test_weights_beside_the_model_are_found_and_hashed(
    program: RewrittenProgram, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exporter.targets.onnx import save

    monkeypatch.setattr(save, "_EXTERNAL_ABOVE_BYTES", 1000)

    artifact = emit(program, tmp_path)

    parts = [(tmp_path / name).read_bytes() for name in ("model_trt.onnx", "model_trt.onnx.data")]
    assert artifact.built_from["onnx_sha256"] == hashlib.sha256(b"".join(parts)).hexdigest()
    assert prove_it(program, artifact).shortfalls == []


def test_int8_is_around_zero_as_tensorrt_demands(
    program: RewrittenProgram, world: World, tmp_path: Path
) -> None:
    images = family("timm_vit").images(4).numpy()

    target("trt").emit(program, replace(REQUEST, precision="int8", calibration=images), tmp_path)

    graph = onnx.load(tmp_path / "model_trt.onnx").graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [constants[node.input[2]] for node in quantizers if len(node.input) > 2]
    assert len(quantizers) > 0
    assert {zero.dtype for zero in zeros} <= {np.dtype(np.int8)}
    assert all((zero == 0).all() for zero in zeros)


def test_profile_is_refused_before_anything_is_written(
    program: RewrittenProgram, world: World, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="fixed to batch 2"):
        emit(program, tmp_path, min_batch=1, opt_batch=4, max_batch=8)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("missing/kernels.cache", "existing folder", id="no folder"),
        pytest.param(".", "cannot be read", id="folder"),
    ],
)
def test_timing_cache_that_cannot_be_read_is_refused(
    program: RewrittenProgram, world: World, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(UsageError, match=f"trt.timing_cache: .*{words}"):
        emit(program, tmp_path / "out", timing_cache=str(tmp_path / name))

    assert list((tmp_path / "out").iterdir()) == []


def test_timing_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"trt.timing_cache: .*kernels.cache cannot be written: No such file"
    ):
        timing_cache.write(tmp_path / "missing" / "kernels.cache", b"measured")


def test_describe_names_version_and_gpu(world: World) -> None:
    assert target("trt").describe() == "TensorRT 11.4.0.106: NVIDIA H200, compute capability 9.0"


@pytest.mark.parametrize(
    ("version", "taken"),
    [("10.13.3.9", False), ("10.14.1.48", True), ("11.4.0.106", True), ("12.0.0.1", False), ("8.6.1", False)],
)
def test_versions_that_are_not_supported_are_refused(
    world: World, version: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_version(version, monkeypatch)

    if taken:
        assert library.tensorrt().__version__ == version
    else:
        with pytest.raises(
            TargetUnavailableError, match=rf"10\.14 or later and below 12, got {version}; pip"
        ):
            library.tensorrt()


def test_missing_tensorrt_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    with pytest.raises(
        TargetUnavailableError, match=r'TensorRT is not installed; pip install "exporter\[trt\]"$'
    ):
        find_target("trt").check_available()


def test_library_that_cannot_be_loaded_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)

    with pytest.raises(TargetUnavailableError, match=r"cannot be loaded: libnvinfer\.so\.11"):
        library.tensorrt()


def test_machine_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(TargetUnavailableError, match="no GPU that torch can use"):
        device.current_device()


def test_gpu_is_read_from_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (12, 0))

    here = device.current_device()

    assert (here.name, here.capability_text, here.place) == ("GPU 1", "12.0", "cuda")
