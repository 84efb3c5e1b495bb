"""The provider that was asked for, or an error: what ONNX Runtime is told, and what is made of what it answers.

ONNX Runtime's build for the CPU comes with one more provider, which has no kernels for these operators. It stands in
for a GPU's, so that the refusals are the real ones.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from exporter.errors import BundleError, TargetUnavailableError
from exporter.targets import Signature, TensorSpec
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.providers import PROVIDERS, Stream, check_provider, open_session, provider_options
from exporter.targets.onnx.runner import OnnxRunner
from exporter.targets.onnx.session import session_settings
from tests.support.hand_made_onnx import write_product

WITHOUT_KERNELS = "AzureExecutionProvider"
CUDA = OnnxOptions(provider="cuda")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_product(tmp_path / "model.onnx")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WITHOUT_KERNELS in onnxruntime.get_available_providers()
    monkeypatch.setitem(PROVIDERS, "cuda", WITHOUT_KERNELS)


def settings() -> Any:
    quiet = session_settings(threads=1, spinning=False)
    quiet.log_severity_level = 4
    return quiet


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_this_build_lacks_is_not_available(provider: Any, model: Path) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=(2, 2))
    runner = OnnxRunner(
        path=model,
        signature=Signature(inputs=(spec,), outputs=(spec,)),
        options=OnnxOptions(provider=provider),
    )

    with pytest.raises(TargetUnavailableError, match="pip install onnxruntime-gpu") as caught:
        runner.load()

    assert PROVIDERS[provider] in str(caught.value) and "\n" not in str(caught.value)


def test_the_cpu_is_always_there(model: Path) -> None:
    check_provider(OnnxOptions())
    session = open_session(model, settings(), OnnxOptions(), static=True)

    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("batch", [2, "batch"])
def test_nodes_without_a_kernel_do_not_run_on_the_cpu(
    batch: int | str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_product(tmp_path / "model.onnx", batch)

    with pytest.raises(TargetUnavailableError, match=f"model.onnx: {WITHOUT_KERNELS}.*has no kernel"):
        open_session(path, settings(), CUDA, static=isinstance(batch, int))

    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("stand_in")
def test_arithmetic_on_a_free_batch_axis_may_run_on_the_cpu(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Shape", ["x"], ["y"])],
        "shape",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    session = open_session(model.SerializeToString(), settings(), CUDA, static=False)

    assert session.run(None, {"x": np.zeros((5, 2), np.float32)})[0].tolist() == [5, 2]


@pytest.mark.usefixtures("stand_in")
def test_a_free_batch_axis_needs_an_onnx_runtime_that_tells_what_runs_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = SimpleNamespace(get_providers=lambda: [WITHOUT_KERNELS, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *given, **named: silent)
    path = write_product(tmp_path / "model.onnx", "batch")

    with pytest.raises(TargetUnavailableError, match="fix the batch, or pip install --upgrade"):
        open_session(path, settings(), CUDA, static=False)


def test_a_file_that_is_no_model_is_damaged_on_every_provider(tmp_path: Path, stand_in: None) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")

    for options in (OnnxOptions(), CUDA):
        with pytest.raises(BundleError, match="model.onnx"):
            open_session(tmp_path / "model.onnx", settings(), options, static=True)


@pytest.mark.usefixtures("stand_in")
def test_a_provider_that_does_not_load_is_not_available(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def without_libraries(*given: Any, **named: Any) -> Any:
        asked.append((given, named))
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", without_libraries)

    with pytest.raises(TargetUnavailableError, match=f"expected {WITHOUT_KERNELS}, got CPUExecutionProvider"):
        open_session(model, settings(), CUDA, static=True, stream=Stream(handle=7, device=2, cuda_graph=True))

    ((path, told), named) = asked[0]
    assert path == str(model) and named["enable_fallback"] == 0
    assert told.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
    assert named["providers"] == [
        (
            WITHOUT_KERNELS,
            {"use_tf32": "0", "device_id": "2", "user_compute_stream": "7", "enable_cuda_graph": "1"},
        )
    ]


def test_missing_libraries_are_no_fault_of_the_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_tensorrt(*given: Any, **named: Any) -> Any:
        raise RuntimeError("Please install TensorRT libraries as mentioned in the GPU requirements page")

    monkeypatch.setattr(onnxruntime, "InferenceSession", without_tensorrt)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))

    with pytest.raises(
        TargetUnavailableError, match="got Please install TensorRT.*pip install .* .tensorrt-cu13<11"
    ):
        open_session(model, settings(), OnnxOptions(provider="tensorrt"), static=True)
    with pytest.raises(BundleError, match="Please install"):
        open_session(model, settings(), OnnxOptions(), static=True)


@pytest.mark.parametrize(
    ("options", "types", "stream", "expected"),
    [
        pytest.param(OnnxOptions(), {"FLOAT"}, None, {}, id="cpu"),
        pytest.param(CUDA, {"FLOAT16"}, None, {"use_tf32": "0"}, id="cuda"),
        pytest.param(OnnxOptions(provider="cuda", tf32=True), set(), None, {"use_tf32": "1"}, id="tf32"),
        pytest.param(OnnxOptions(provider="tensorrt"), {"FLOAT", "INT64"}, None, {}, id="tensorrt"),
        pytest.param(
            OnnxOptions(provider="tensorrt"),
            {"FLOAT", "FLOAT16"},
            Stream(handle=9, device=0, cuda_graph=False),
            {
                "trt_fp16_enable": "1",
                "device_id": "0",
                "user_compute_stream": "9",
                "trt_cuda_graph_enable": "0",
            },
            id="tensorrt fp16",
        ),
        pytest.param(
            OnnxOptions(provider="tensorrt", engine_cache="cache"),
            {"BFLOAT16", "INT8"},
            None,
            {
                "trt_bf16_enable": "1",
                "trt_int8_enable": "1",
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": "cache",
            },
            id="tensorrt cache",
        ),
    ],
)
def test_providers_are_told_what_the_options_and_the_types_say(
    options: OnnxOptions, types: set[str], stream: Stream | None, expected: dict[str, str]
) -> None:
    assert provider_options(options, frozenset(types), stream) == expected


def test_time_by_block_and_calls_on_the_device_are_for_their_own_providers(model: Path) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=(2, 2))
    images = np.zeros((2, 2), np.float32)

    with pytest.raises(TargetUnavailableError, match="expected a provider on a GPU"):
        OnnxRunner(path=model, signature=Signature(inputs=(spec,), outputs=(spec,))).enqueue(
            images, cuda_graph=False
        )
    with pytest.raises(TargetUnavailableError, match="expected provider cpu"):
        OnnxRunner(path=model, signature=Signature(inputs=(spec,), outputs=(spec,)), options=CUDA).profile(
            images, calls=1, folder=model.parent
        )
