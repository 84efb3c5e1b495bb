"""The target with the real library, and its runner over the recording stand-in: no GPU is here to run an engine."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.errors import BundleError, TargetUnavailableError, UsageError
from exporter.forms import Precision
from exporter.rewrite import RewrittenProgram
from exporter.targets import Artifact, Signature, TensorSpec, find_target, open_runner, target
from exporter.targets.trt import device
from exporter.targets.trt.device import Device
from exporter.targets.trt_rtx.emit import build_engine
from exporter.targets.trt_rtx.gpus import obstacle
from exporter.targets.trt_rtx.options import RtxOptions
from exporter.targets.trt_rtx.product import ENGINE, ONNX, RECORD, RTX
from exporter.validation import TOLERANCES, run_eager, verify
from tests.support.families import family
from tests.support.hand_made_onnx import write_doubling, write_product
from tests.support.tiny_vit import request_of
from tests.unit.targets.trt import stand_in
from tests.unit.targets.trt.bindings_facts import facts
from tests.unit.targets.trt.recording import World
from tests.unit.targets.trt.signatures import differences, library_classes

ADA = Device(name="NVIDIA RTX 4090", capability=(8, 9), place="cpu")
HOPPER = Device(name="NVIDIA H100", capability=(9, 0), place="cpu")

REQUEST = request_of(RtxOptions())


def write_matmul(folder: Path) -> Signature:
    """Write a product of fp32; its signature."""
    write_product(folder / ONNX)
    shape = TensorSpec(name="x", dtype="float32", shape=(2, 2))
    return Signature(inputs=(shape,), outputs=(replace(shape, name="y"),))


def emit(program: RewrittenProgram, folder: Path, **further: Any) -> Artifact:
    return target("trt-rtx").emit(program, replace(REQUEST, **further), folder)


def shortfalls(program: RewrittenProgram, artifact: Artifact, precision: Precision = "fp32") -> list[str]:
    references = run_eager(program, {"images": {"images": family("timm_vit").images(2).numpy()}})
    return verify(program, artifact, references, TOLERANCES[precision]).shortfalls


@pytest.mark.usefixtures("rtx")
class TestBuilder:
    """With the real library, on any machine."""

    def test_engine_that_cannot_run_here_is_built_and_never_called_verified(
        self, program: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(device, "find_device", lambda: HOPPER)

        artifact = emit(program, tmp_path)

        assert sorted(path.name for path in tmp_path.iterdir()) == [ENGINE, RECORD, ONNX]
        assert (tmp_path / ENGINE).read_bytes().startswith(b"vtrt")
        assert (artifact.target, artifact.file) == ("trt-rtx-onnx", ONNX)
        (engine,), (note,) = artifact.unverified, artifact.notes
        assert (engine.target, engine.file, engine.details["verified"]) == ("trt-rtx", ENGINE, False)
        assert engine.built_from["tensorrt_rtx"] == RTX.load().__version__
        assert note.startswith(f"{ENGINE} is built and not verified: NVIDIA H100 has compute capability 9.0")
        assert shortfalls(program, artifact) == []  # of the ONNX

    def test_int8_is_built(self, program: RewrittenProgram, tmp_path: Path) -> None:
        images = family("timm_vit").images(8).numpy()

        artifact = emit(program, tmp_path, precision="int8", calibration=images)

        assert (tmp_path / ENGINE).stat().st_size > 1000
        assert shortfalls(program, artifact, "int8") == []

    def test_generation_without_fp32_products_says_so(self, tmp_path: Path) -> None:
        signature = write_matmul(tmp_path)
        request = replace(REQUEST, signature=signature, options=RtxOptions(hardware_compatibility="turing"))

        with pytest.raises(TargetUnavailableError, match=r"capability 7\.5: .*FP32 GEMM is not supported"):
            build_engine(RTX.load(), request, tmp_path)

    @pytest.mark.parametrize("level", ["ampere", "ada", "blackwell"])
    def test_every_other_generation_is_built_for(self, tmp_path: Path, level: Any) -> None:
        request = replace(
            REQUEST, signature=write_matmul(tmp_path), options=RtxOptions(hardware_compatibility=level)
        )

        identity = build_engine(RTX.load(), request, tmp_path)

        assert identity.level == level
        assert json.loads((tmp_path / RECORD).read_text())["identity"] == asdict(identity)

    def test_profile_that_excludes_the_batch_is_refused(
        self, program: RewrittenProgram, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match=r"^trt-rtx\.min_batch.*fixed to batch 2"):
            emit(program, tmp_path, options=RtxOptions(min_batch=1, opt_batch=2, max_batch=4))

        assert list(tmp_path.iterdir()) == []

    def test_doctor_says_that_engines_are_built_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device, "find_device", lambda: HOPPER)
        elsewhere = target("trt-rtx").describe()
        monkeypatch.setattr(device, "find_device", lambda: ADA)

        assert "builds engines, which do not run here: NVIDIA H100 has compute capability 9.0" in elsewhere
        assert target("trt-rtx").describe().endswith(": NVIDIA RTX 4090, compute capability 8.9")


def test_stand_in_has_the_librarys_names_and_signatures(rtx: Any) -> None:
    assert differences(library_classes(stand_in), facts(rtx)) == []


@pytest.fixture
def box(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """An RTX 4090, with the stand-in in the place of the library."""
    monkeypatch.setattr(stand_in, "__version__", "1.7.1.116")
    monkeypatch.setitem(sys.modules, RTX.module, stand_in)
    monkeypatch.setattr(device, "find_device", lambda: ADA)
    return world


def test_engine_that_runs_here_is_verified_itself(
    box: World, program: RewrittenProgram, tmp_path: Path
) -> None:
    artifact = emit(program, tmp_path)

    assert (artifact.target, artifact.file) == ("trt-rtx", ENGINE)
    assert (artifact.unverified, artifact.notes) == ((), ())
    assert shortfalls(program, artifact) == []
    assert "Runtime.deserialize_cuda_engine" in box.calls


@pytest.fixture
def built(box: World, tmp_path: Path) -> Path:
    """An engine of two rows a batch."""
    signature = write_doubling(tmp_path / ONNX, 2)
    build_engine(stand_in, replace(REQUEST, signature=signature), tmp_path)
    return tmp_path / ENGINE


def load(engine: Path) -> Any:
    signature = write_doubling(engine.with_name("again.onnx"), 2)
    return open_runner("trt-rtx", engine, signature=signature).load()


def test_engine_is_run_by_its_runner(built: Path) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    signature = write_doubling(built.with_name("again.onnx"), 2)

    outputs = open_runner("trt-rtx", built, signature=signature)(rows)

    np.testing.assert_array_equal(outputs["doubled"], 2 * rows)


def test_engine_on_another_gpu_is_refused_in_one_line(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_device", lambda: HOPPER)

    with pytest.raises(
        TargetUnavailableError, match=r"^model_rtx\.engine: NVIDIA H100 .* 9\.0, expected 8\.6, 8\.9, 12\.x$"
    ):
        load(built)


def test_engine_of_another_version_is_refused(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in, "__version__", "1.8.0.1")

    with pytest.raises(TargetUnavailableError, match=r"expected 1\.7\.1\.116, got 1\.8\.0\.1"):
        load(built)


@pytest.mark.parametrize(
    "record", [None, "{}", '{"identity": {"onnx_sha256": "", "options": "{}", "tensorrt_rtx": ""}}']
)
def test_engine_without_its_record_is_a_damaged_bundle(built: Path, record: str | None) -> None:
    built.with_name(RECORD).unlink()
    if record is not None:
        built.with_name(RECORD).write_text(record)

    with pytest.raises(BundleError, match=r"model_rtx\.json: expected what model_rtx\.engine was built from"):
        load(built)


@pytest.mark.parametrize(
    ("capability", "level", "runs"),
    [
        ((7, 5), "turing", True),
        ((7, 5), "ampere_plus", False),
        ((8, 0), "ampere_plus", False),
        ((8, 6), "ampere_plus", True),
        ((8, 9), "ampere", False),
        ((9, 0), "ampere_plus", False),
        ((10, 0), "ampere_plus", False),
        ((12, 0), "ampere_plus", True),
        ((12, 1), "blackwell", True),
        ((12, 0), "ada", False),
    ],
)
def test_gpus_of_a_level_run_its_engines(capability: tuple[int, int], level: Any, runs: bool) -> None:
    assert obstacle(None, level).startswith("no GPU that torch can use")
    assert (obstacle(Device(name="GPU", capability=capability), level) == "") == runs


def test_missing_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, RTX.module, None)

    with pytest.raises(
        TargetUnavailableError, match=r'^target trt-rtx: .*not installed; pip install "exporter\[trt-rtx\]"$'
    ):
        find_target("trt-rtx").check_available()
