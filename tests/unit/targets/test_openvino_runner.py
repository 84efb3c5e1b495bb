"""The OpenVINO runner over models made by hand: threads, precision, and what it refuses."""

import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from exporter.errors import BundleError, TargetUnavailableError, UsageError
from exporter.targets import Signature, TensorSpec
from exporter.targets.openvino import device
from exporter.targets.openvino.library import load_library
from exporter.targets.openvino.options import OpenVinoOptions
from exporter.targets.openvino.runner import OpenVinoRunner
from exporter.targets.openvino.target import TARGET
from tests.support.hand_made_onnx import write_doubling
from tests.support.runner_contract import Opened, RunnerContract, rows

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")

ROOT = Path(__file__).parents[3]
WIDTH = 64


def write_model(folder: Path, batch: int | str, **options: Any) -> OpenVinoRunner:
    return converted(folder, write_doubling(folder / "model.onnx", batch), **options)


def write_product(folder: Path, dtype: int = TensorProto.FLOAT, **options: Any) -> OpenVinoRunner:
    """A model that sums every row by a product with ones, computed in `dtype`."""
    ones = helper.make_tensor("ones", TensorProto.FLOAT, [WIDTH, WIDTH], [1.0] * WIDTH**2)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["narrow"], to=dtype),
            helper.make_node("Cast", ["ones"], ["weight"], to=dtype),
            helper.make_node("MatMul", ["narrow", "weight"], ["product"]),
            helper.make_node("Cast", ["product"], ["doubled"], to=TensorProto.FLOAT),
            helper.make_node("Identity", ["images"], ["centred"]),
        ],
        "by_hand",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [WIDTH, WIDTH])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [WIDTH, WIDTH])
            for name in ("doubled", "centred")
        ],
        [ones],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    given, *made = (
        TensorSpec(name=name, dtype="float32", shape=(WIDTH, WIDTH))
        for name in ("images", "doubled", "centred")
    )
    return converted(folder, Signature(inputs=(given,), outputs=tuple(made)), **options)


def converted(folder: Path, signature: Signature, **options: Any) -> OpenVinoRunner:
    """Convert `model.onnx`, and open it."""
    library = load_library()
    library.save_model(
        library.Core().read_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False
    )
    runner = TARGET.open(folder / "model.xml", signature, OpenVinoOptions(**options))
    assert isinstance(runner, OpenVinoRunner)
    return runner


class TestOpenVinoRunner(RunnerContract):
    """Over OpenVINO on the CPU, where several batches run at once with the hint `throughput`."""

    @pytest.fixture(params=["latency", "throughput"])
    def runner_of(self, request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
        return partial(write_model, tmp_path, performance_hint=request.param)


def test_model_is_compiled_once_and_only_when_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = write_model(tmp_path, 1)
    compiled: list[dict[str, Any]] = []
    library = load_library()
    compile_model = library.Core.compile_model

    def counting(core: Any, model: Any, device_name: str, properties: dict[str, Any]) -> Any:
        compiled.append(properties)
        return compile_model(core, model, device_name, properties)

    monkeypatch.setattr(library.Core, "compile_model", counting)
    assert compiled == []

    runner.threads = 2
    runner(rows(3))
    runner(rows(1))

    (properties,) = compiled
    assert properties["INFERENCE_NUM_THREADS"] == 2


def fine_rows() -> Any:
    """Values of which bf16, with its 8 bits, keeps none."""
    generator = np.random.default_rng(0)
    return (1 + generator.random((WIDTH, WIDTH)) / 300).astype(np.float32)


def sums_error(runner: OpenVinoRunner) -> float:
    expected = fine_rows().astype(np.float64).sum(axis=1, keepdims=True)
    return float(np.abs(runner(fine_rows())["doubled"] - expected).max())


def capable_of(precision: str) -> bool:
    return precision in device.devices()["CPU"][1]


def test_programs_in_fp32_are_computed_in_fp32_on_processors_that_prefer_bf16(tmp_path: Path) -> None:
    assert sums_error(write_product(tmp_path)) < 1e-4


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        pytest.param(TensorProto.FLOAT, {"precision_hint": "bf16"}, id="hint"),
        pytest.param(TensorProto.BFLOAT16, {}, id="typed"),
    ],
)
def test_what_is_asked_for_in_bf16_is_computed_in_bf16(
    tmp_path: Path, dtype: int, options: dict[str, Any]
) -> None:
    if not capable_of("bf16"):
        pytest.skip("this processor has no bf16")

    error = sums_error(write_product(tmp_path, dtype, **options))

    assert 1e-2 < error < WIDTH * 2**-8


@pytest.mark.parametrize(
    ("dtype", "options", "lacking"),
    [
        pytest.param(TensorProto.FLOAT16, {}, "fp16", id="typed-fp16"),
        pytest.param(TensorProto.BFLOAT16, {}, "bf16", id="typed-bf16"),
        pytest.param(TensorProto.FLOAT, {"precision_hint": "f16"}, "fp16", id="hint-f16"),
    ],
)
def test_a_precision_that_the_device_lacks_is_refused_and_not_widened_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: int, options: dict[str, Any], lacking: str
) -> None:
    monkeypatch.setitem(device.CAPABILITIES, lacking, "a type that no processor has")
    runner = write_product(tmp_path, dtype, **options)

    with pytest.raises(
        TargetUnavailableError, match=f"precision: CPU .* got {lacking}, .* another precision"
    ):
        runner.load()


def test_a_device_that_is_not_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailableError, match="device: expected one of .*CPU.*, got TPU"):
        write_model(tmp_path, 1, device="TPU").load()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"threads": -1}, "threads: expected 0 or more, got -1", id="negative"),
        pytest.param({"threads": 2, "device": "GPU"}, "expected 0 with device GPU, got 2", id="gpu"),
    ],
)
def test_options_without_sense_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        write_model(tmp_path, 1, **options)


@pytest.mark.parametrize("content", [None, b"", b"no model at all", b"<?xml version='1.0'?><html />"])
def test_a_file_that_is_no_model_is_a_damaged_bundle(
    tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    runner = write_model(tmp_path, 1)
    (tmp_path / "model.xml").unlink()
    if content is not None:
        (tmp_path / "model.xml").write_bytes(content)

    with pytest.raises(BundleError, match=r"model\.xml"):
        runner(rows(1))

    assert "tensorflow" not in capfd.readouterr().err.lower()


def test_a_file_that_was_cut_short_is_a_damaged_bundle(tmp_path: Path) -> None:
    runner = write_model(tmp_path, 1)
    written = (tmp_path / "model.xml").read_bytes()
    (tmp_path / "model.xml").write_bytes(written[: len(written) // 2])

    with pytest.raises(BundleError, match=r"model\.xml: OpenVINO cannot read it"):
        runner.load()


@pytest.mark.parametrize("kept", [None, 100])
def test_weights_that_are_missing_or_cut_short_are_a_damaged_bundle(tmp_path: Path, kept: int | None) -> None:
    runner = write_product(tmp_path)
    weights = (tmp_path / "model.bin").read_bytes()
    (tmp_path / "model.bin").unlink()
    if kept is not None:
        (tmp_path / "model.bin").write_bytes(weights[:kept])

    with pytest.raises(BundleError, match=r"model\.xml: .*weights"):
        runner.load()


def in_a_fresh_home(source: str, tmp_path: Path) -> str:
    """Run Python with an empty home, and a reporter that only leaves a note."""
    (tmp_path / "home").mkdir()
    reporter = tmp_path / "stand_in" / "openvino_telemetry"
    reporter.mkdir(parents=True)
    note = tmp_path / "home" / "reported"
    (reporter / "__init__.py").write_text(f"open({str(note)!r}, 'w').close()\nraise ImportError\n")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "CI"))}
    said = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=True,
        env={
            **inherited,
            "HOME": str(tmp_path / "home"),
            "PYTHONPATH": f"{tmp_path / 'stand_in'}:{ROOT}",
        },
    )
    return said.stdout.strip()


def test_openvino_alone_would_report_to_its_maker(tmp_path: Path) -> None:
    in_a_fresh_home("import openvino", tmp_path)

    assert [path.name for path in (tmp_path / "home").iterdir()] == ["reported"]


def test_making_and_running_files_reports_to_nobody_and_imports_no_torch(tmp_path: Path) -> None:
    write_model(tmp_path, 1)
    source = (
        "import sys; calls = []; "
        "sys.addaudithook(lambda event, _: calls.append(event) if event.startswith('socket.') else None); "
        "import numpy as np; from pathlib import Path; from exporter.targets import Signature, TensorSpec; "
        "from exporter.targets.openvino.target import TARGET; "
        "from exporter.targets.openvino.library import load_library; "
        f"folder = Path({str(tmp_path)!r}); library = load_library(); "
        "model = library.Core().read_model(folder / 'model.onnx'); "
        "library.save_model(model, folder / 'model.xml', compress_to_fp16=False); "
        "spec = TensorSpec(name='images', dtype='float32', shape=(1, 2)); "
        "out = (TensorSpec(name='doubled', dtype='float32', shape=(1, 2)),); "
        "runner = TARGET.open(folder / 'model.xml', Signature(inputs=(spec,), outputs=out), TARGET.options()); "
        "print(runner(np.ones((1, 2), np.float32))['doubled'].tolist(), calls, 'torch' in sys.modules, "
        "[name for name in sys.modules if name.startswith('openvino_telemetry')]); "
        "import openvino; print(openvino.tools.ovc.telemetry.__class__.__module__)"
    )

    said = in_a_fresh_home(source, tmp_path)

    assert said.splitlines() == ["[[2.0, 2.0]] [] False []", "openvino.tools.ovc.telemetry_stub"]
    assert list((tmp_path / "home").iterdir()) == []


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(TargetUnavailableError, match=r'pip install "exporter\[openvino\]"'):
        TARGET.check_available()


def test_description_names_version_and_devices() -> None:
    library = load_library()

    said = TARGET.describe()

    assert said.startswith(f"OpenVINO {library.__version__.split('-')[0]}: ")
    assert f"CPU ({library.Core().get_property('CPU', 'FULL_DEVICE_NAME')}; fp32" in said


def test_users_of_openvino_may_come_and_go_in_any_order_before_a_child_process_ends(tmp_path: Path) -> None:
    """With a core of its own for each, the process dies of the child's signal: its stack for signals is gone."""
    source = (
        "import gc, signal, subprocess; "
        "from exporter.targets.openvino.library import shared_core; "
        "signal.signal(signal.SIGCHLD, lambda *_: None); "
        "first, second = shared_core(), shared_core(); "
        "first.get_property('CPU', 'FULL_DEVICE_NAME'); second.get_property('CPU', 'FULL_DEVICE_NAME'); "
        "del first; gc.collect(); del second; gc.collect(); "
        "freed = [bytearray(1 << 16) for _ in range(2000)]; del freed; "
        "print(subprocess.run(['true']).returncode)"
    )

    assert in_a_fresh_home(source, tmp_path) == "0"
