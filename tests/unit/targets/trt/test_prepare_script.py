"""The script that a prepared bundle carries, over the recording stand-in: what it calls, proves, refuses."""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporter.targets.trt import build_trt
from exporter.targets.trt.files import read_identity
from exporter.targets.trt.inspect import Inspection, read_layers
from exporter.targets.trt.options import TrtOptions
from tests.unit.targets.trt import pretended_cuda, stand_in
from tests.unit.targets.trt.conftest import build_runner, open_runner, use_version
from tests.unit.targets.trt.prepared import IMAGES, prepared_folder, run_script, write_proof
from tests.unit.targets.trt.recording import World


@pytest.fixture
def box(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine with TensorRT, a GPU, and CUDA's Python bindings."""
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", pretended_cuda)
    return world


LAYERS = [
    {"Name": "_gemm_mha_v2_myl0_17", "LayerType": "kgen", "Metadata": "[ONNX Layer: block_00/Softmax_24]"},
    {"Name": "alpha", "LayerType": "gemm", "TacticName": "sm90_alpha", "Metadata": "[ONNX Layer: a/Softmax]"},
]


def test_engine_is_built_verified_and_noted_down(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    box.layers = json.dumps({"Layers": LAYERS})
    folder = prepared_folder(tmp_path / "bundle", builder_level=2)
    before = sorted(path.name for path in folder.iterdir())

    status = run_script(folder, monkeypatch, "--out", str(tmp_path / "made"))

    verdict = capsys.readouterr().out.splitlines()[-1]
    assert status == 0
    assert verdict.startswith(f"verified: {tmp_path / 'made' / 'model.engine'}: ")
    assert "attention fused 1/2" in verdict and "ms for a batch of 2" in verdict
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["model.engine", "model_trt.json"]
    assert sorted(path.name for path in folder.iterdir()) == before
    assert box.handles == [77] * (build_trt.WARM_UP_CALLS + build_trt.TIMED_CALLS)


@pytest.mark.parametrize("version", ["10.14.1.48", "11.4.0.106"])
@pytest.mark.parametrize(
    ("batch", "options"),
    [
        pytest.param(2, {}, id="defaults"),
        pytest.param(2, {"workspace_mb": 64, "builder_level": 5, "tf32": True}, id="numbers"),
        pytest.param(2, {"strip_plan": True, "hardware_compatibility": "ampere_plus"}, id="stripped"),
        pytest.param(2, {"strip_plan": True, "refit": True, "version_compatible": True}, id="refit"),
        pytest.param(
            "batch",
            {"min_batch": 1, "opt_batch": 2, "max_batch": 4}
            | {"hardware_compatibility": "same_compute_capability"},
            id="profile",
        ),
    ],
)
def test_script_asks_tensorrt_for_what_the_target_asks_for(
    box: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    batch: int | str,
    options: dict[str, Any],
) -> None:
    use_version(version, monkeypatch)
    box.layers = json.dumps({"Layers": LAYERS})
    build_runner(_new(tmp_path / "own"), batch, **options)(IMAGES)
    own, settings = calls_of(box), settings_of(box)
    box.calls.clear()
    folder = prepared_folder(tmp_path / "bundle", batch, **options)

    status = run_script(folder, monkeypatch, "--out", str(tmp_path / "made"))

    assert status == 0
    assert calls_of(box) == own
    assert settings_of(box) == settings
    engines = [(tmp_path / name / "model.engine") for name in ("own", "made")]
    assert engines[0].read_bytes() == engines[1].read_bytes()
    assert read_identity(engines[0]) == read_identity(engines[1])
    runner = open_runner(tmp_path / "made", batch, TrtOptions(**options))
    np.testing.assert_array_equal(runner(IMAGES)["doubled"], 2 * IMAGES)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


ONE_SIDED = (
    "ILogger.",  # nobody calls it in both
    "IBuilderConfig.progress_monitor",  # there is no progress bar
    "IProgressMonitor.",
    "ITimingCache.serialize",  # a cache is not kept
    "Runtime.",  # the target loads the engine a second time, to run it
    "ICudaEngine.",  # and looks whether it is the right one
)
"""What the target does and the script need not."""


def calls_of(world: World) -> list[str]:
    """The calls that make up a build and a first run, in order."""
    found = [call for call in world.calls if not call.startswith(ONE_SIDED)]
    return found[: found.index("IExecutionContext.execute_async_v3") + 1]


def settings_of(world: World) -> dict[str, Any]:
    own = {key: value for key, value in world.settings.items() if key != "progress_monitor"}
    return {**own, "flags": sorted(world.flags)}


@pytest.mark.parametrize(
    ("profile", "images"),
    [
        pytest.param((4, 4, 8), IMAGES, id="fewer images than the smallest batch"),
        pytest.param((1, 1, 1), np.repeat(IMAGES[:1], 2, axis=0), id="more images than the largest"),
    ],
)
def test_sample_is_fitted_to_the_profile(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: tuple[int, ...], images: Any
) -> None:
    options = dict(zip(("min_batch", "opt_batch", "max_batch"), profile, strict=True))
    folder = prepared_folder(tmp_path / "bundle", "batch", images, **options)

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "made")) == 0


def test_stripped_engine_gets_the_model_beside_it(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared_folder(tmp_path / "bundle", strip_plan=True)

    run_script(folder, monkeypatch, "--out", str(tmp_path / "made"))

    assert (tmp_path / "made" / "model_trt.onnx").read_bytes() == (folder / "model_trt.onnx").read_bytes()


def test_wrong_numbers_end_with_5_and_leave_no_engine_under_its_name(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = stand_in.IExecutionContext._run

    def run(self: Any) -> None:
        right(self)
        self._array("doubled", "float32")[...] *= 1.001

    monkeypatch.setattr(stand_in.IExecutionContext, "_run", run)
    folder = prepared_folder(tmp_path / "bundle")

    status = run_script(folder, monkeypatch, "--out", str(tmp_path / "made"))

    (line,) = capsys.readouterr().err.splitlines()
    assert status == 5
    assert line.startswith(
        "error: not what eager PyTorch computes: doubled: max_abs_error 0.016 above 0.0016; "
    )
    assert "centred" not in line
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["unproven.engine"]


def test_own_sample_of_the_artifact_comes_first(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared_folder(tmp_path / "bundle")
    (folder / "sample.npz").rename(folder / "sample-trt-onnx.npz")
    write_proof(folder, images=IMAGES, doubled=3 * IMAGES, centred=IMAGES)

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "made")) == 0
    (folder / "sample-trt-onnx.npz").unlink()
    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "again")) == 5


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return str(line)


def test_tensorrt_is_missing(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    folder = prepared_folder(tmp_path / "bundle")

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "made")) == 7
    assert one_line(capsys).endswith("; pip install -r requirements_trt.txt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("version", ["10.13.3.9", "12.0.0.1"])
def test_tensorrt_is_of_another_age(
    box: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    version: str,
) -> None:
    use_version(version, monkeypatch)
    folder = prepared_folder(tmp_path / "bundle")

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "made")) == 7
    assert f"expected TensorRT 10.14 or later and below 12, got {version}" in one_line(capsys)


def test_gpu_is_missing(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretended_cuda, "devices", [])
    folder = prepared_folder(tmp_path / "bundle")

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "made")) == 7
    assert one_line(capsys).endswith("cudaGetDeviceProperties: cudaErrorNoDevice")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"start_error": "driver too old"}, "cannot start; is the NVIDIA driver new enough?: driver too old"),
        ({"build_error": "no tactic"}, "builds no engine: no tactic"),
        ({"context_refused": True}, "cannot run a batch of 2"),
    ],
)
def test_tensorrt_fails(
    box: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trouble: dict[str, Any],
    said: str,
) -> None:
    vars(box).update(trouble)
    folder = prepared_folder(tmp_path / "bundle")

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "made")) == 7
    assert said in one_line(capsys)
    assert list((tmp_path / "made").iterdir()) == []


def test_every_node_that_the_parser_refuses_has_a_line(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    box.parser_errors = [(3, "block_00/TopK_1", "TopK", "K is\n too large"), (5, "b", "ScatterND", "no")]
    folder = prepared_folder(tmp_path / "bundle")

    status = run_script(folder, monkeypatch, "--out", str(tmp_path / "made"))

    first, second, last = capsys.readouterr().err.splitlines()
    assert (status, first) == (4, "node 3 block_00/TopK_1 (TopK): K is too large")
    assert second == "node 5 b (ScatterND): no"
    assert "refuses model_trt.onnx, 2 errors" in last


def test_changed_model_is_refused_before_anything_is_imported(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    folder = prepared_folder(tmp_path / "bundle")
    model = onnx.load(folder / "model_trt.onnx")
    model.doc_string = "changed"
    onnx.save(model, folder / "model_trt.onnx")

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "made")) == 8
    assert "model_trt.onnx: expected sha256 " in one_line(capsys)


@pytest.mark.parametrize("name", ["sample.npz", "parity.json"])
def test_missing_proof_is_said(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = prepared_folder(tmp_path / "bundle")
    (folder / name).unlink()

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "made")) == 8
    assert "its sample or parity.json cannot be read" in one_line(capsys)


@pytest.mark.parametrize("inside", ["", "engine"])
def test_sealed_bundle_is_not_written_into(
    box: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    inside: str,
) -> None:
    folder = prepared_folder(tmp_path / "bundle")
    monkeypatch.chdir(folder)

    assert run_script(folder, monkeypatch, *(["--out", "."] if not inside else [])) == 2
    assert one_line(capsys).endswith(f"--out {tmp_path / 'bundle-engine'}")
    assert not (folder / "engine").exists()


def test_out_that_is_a_file_is_refused(
    box: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prepared_folder(tmp_path / "bundle")
    (tmp_path / "made").touch()

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "made")) == 2
    assert "cannot be written" in one_line(capsys)


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param(LAYERS, id="named"),
        pytest.param([*LAYERS, {"Name": "x", "TacticName": "fmha_v2_flash"}], id="one that names no node"),
        pytest.param([LAYERS[0], LAYERS[0] | {"Name": "kgen_mha"}], id="one attention in two layers"),
        pytest.param(
            [LAYERS[0] | {"Metadata": "[ONNX Layer: b/Softmax_1][ONNX Layer: c/Attention]"}], id="two in one"
        ),
        pytest.param([{"Name": "mha", "Metadata": "[ONNX Layer: softmax/MatMul_3]"}], id="another node"),
        pytest.param(["_gemm_mha_v2", "gemm"], id="names only"),
        pytest.param([{"Name": f"mha_{index}"} for index in range(5)], id="more layers than attentions"),
        pytest.param([], id="none"),
    ],
)
def test_script_counts_fused_attention_as_the_target_does(
    layers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_trt, "RECIPE", {"attention": 3})
    text = json.dumps({"Layers": layers})

    assert build_trt.count_fused(layers) == Inspection(layers=tuple(read_layers(text)), attention=3).fused


CALLS = {
    "cudaGetDeviceProperties": (0,),
    "cudaStreamCreate": (),
    "cudaStreamSynchronize": (0,),
    "cudaMalloc": (16,),
    "cudaMemcpy": (0, 0, 0, "cudaMemcpyDefault"),
    "cudaGetErrorString": ("cudaSuccess",),
}


def test_real_cuda_bindings_take_and_return_what_the_pretended_ones_do() -> None:
    real = pytest.importorskip(
        "cuda.bindings.runtime", reason="no cuda-bindings, which torch for CUDA brings"
    )
    pretended = {name for name, value in vars(pretended_cuda).items() if inspect.isfunction(value)}

    for name, arguments in CALLS.items():
        known = {"cudaMemcpyDefault": real.cudaMemcpyKind, "cudaSuccess": real.cudaError_t}
        given = [getattr(known[each], each) if isinstance(each, str) else each for each in arguments]
        result = getattr(real, name)(*given)
        assert isinstance(result[0], real.cudaError_t), name
        assert len(result) == (1 if name in ("cudaStreamSynchronize", "cudaMemcpy") else 2), name
    assert pretended == {*CALLS}
    assert int(real.cudaStream_t(7)) == 7
    assert {"name", "major", "minor"} <= set(dir(real.cudaDeviceProp))
    assert real.cudaGetErrorString(real.cudaError_t.cudaErrorNoDevice)[1].decode() != ""


def test_machine_without_a_driver_ends_with_7(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = pytest.importorskip(
        "cuda.bindings.runtime", reason="no cuda-bindings, which torch for CUDA brings"
    )
    if real.cudaGetDeviceCount()[0] == real.cudaError_t.cudaSuccess:
        pytest.skip("there is a GPU")
    folder = prepared_folder(tmp_path / "bundle")

    assert run_script(folder, monkeypatch, "--out", str(tmp_path / "made")) == 7
    assert "no GPU that can be used: cudaGetDeviceProperties: " in one_line(capsys)
