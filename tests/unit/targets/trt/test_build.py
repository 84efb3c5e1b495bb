"""The build sequence, by the real parser and builder of TensorRT for RTX, which need no GPU, as far as the two agree.

What only TensorRT itself can say is said by the recording stand-in.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from exporter.errors import TargetUnavailableError, UnsupportedGraphError, UsageError
from exporter.targets.trt.build import BuildRequest, Built, build_plan, check_options, configure
from exporter.targets.trt.device import Device
from exporter.targets.trt.library import Log
from exporter.targets.trt.options import TrtOptions
from tests.support.hand_made_onnx import write_doubling
from tests.unit.lint.small_graphs import model
from tests.unit.targets.trt import stand_in
from tests.unit.targets.trt.conftest import HOPPER, use_version
from tests.unit.targets.trt.recording import World

AMPERE = Device(name="NVIDIA A100", capability=(8, 0))
TURING = Device(name="NVIDIA T4", capability=(7, 5))
VOLTA = Device(name="NVIDIA V100", capability=(7, 0))

pytestmark = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")  # of the timing cache

REQUEST = BuildRequest(inputs=("images",), options=TrtOptions(), device=HOPPER)
FREE = TrtOptions(min_batch=1, opt_batch=8, max_batch=32)

Build = Callable[..., Built]


@pytest.fixture
def really(rtx: Any, tmp_path: Path) -> Build:
    """Builds a model with the real library."""

    def build(graph: onnx.ModelProto | int | str, **further: Any) -> Built:
        path = tmp_path / "model_trt.onnx"
        if isinstance(graph, onnx.ModelProto):
            onnx.save(onnx.shape_inference.infer_shapes(graph), path)
        else:
            write_doubling(path, graph)
        return build_plan(rtx, path, replace(REQUEST, **further))

    return build


def build(folder: Path, batch: int | str = 2, **further: Any) -> Built:
    """Build that model with the stand-in."""
    path = folder / "model_trt.onnx"
    write_doubling(path, batch)
    return build_plan(stand_in, path, replace(REQUEST, **further))


def test_engine_is_built_of_the_model(really: Build) -> None:
    of_two, of_four = really(2), really(4)

    assert bytes(of_two.plan) != bytes(of_four.plan)
    assert len(bytes(of_two.plan)) > 1000
    assert len(of_two.cache) > 0


def options(**chosen: Any) -> TrtOptions:
    return TrtOptions(**chosen)


@pytest.fixture
def configured(rtx: Any) -> Callable[[TrtOptions], Any]:
    """A builder's real configuration with the options applied."""

    def make(chosen: TrtOptions) -> Any:
        config = rtx.Builder(Log(rtx).logger).create_builder_config()
        configure(rtx, config, chosen)
        return config

    return make


@pytest.mark.parametrize(
    ("chosen", "flags"),
    [
        pytest.param(options(), set(), id="none"),
        pytest.param(options(tf32=True), {"TF32"}, id="tf32"),
        pytest.param(options(version_compatible=True), {"VERSION_COMPATIBLE"}, id="version"),
        pytest.param(options(refit=True), {"REFIT"}, id="refit"),
        pytest.param(options(strip_plan=True), {"STRIP_PLAN", "REFIT_IDENTICAL"}, id="strip"),
        pytest.param(options(strip_plan=True, refit=True), {"STRIP_PLAN", "REFIT"}, id="strip and refit"),
    ],
)
def test_options_become_builder_flags(
    rtx: Any, configured: Callable[[TrtOptions], Any], chosen: TrtOptions, flags: set[str]
) -> None:
    config = configured(chosen)

    assert {name for name, flag in rtx.BuilderFlag.__members__.items() if config.get_flag(flag)} == flags


def test_options_become_settings(rtx: Any, configured: Callable[[TrtOptions], Any]) -> None:
    config = configured(TrtOptions(workspace_mb=4096, builder_level=5))

    assert config.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) == 4 * 2**30
    assert config.builder_optimization_level == 5
    assert config.profiling_verbosity == rtx.ProfilingVerbosity.DETAILED


def test_compatibility_and_no_limit_become_settings(world: World, tmp_path: Path) -> None:
    build(tmp_path, options=TrtOptions(hardware_compatibility="ampere_plus"))

    assert world.settings["hardware_compatibility_level"].name == "AMPERE_PLUS"
    assert "workspace" not in world.settings


def test_free_batch_is_built_with_its_profile(really: Build) -> None:
    assert len(bytes(really("batch", options=FREE).plan)) > 1000

    with pytest.raises(TargetUnavailableError, match="no optimization profile has been defined"):
        really("batch")


def test_profile_that_the_model_cannot_have_is_refused(really: Build) -> None:
    graph = model("float[batch,3] images, float[4,3] w", "y = Add(images, w)")

    with pytest.raises((TargetUnavailableError, UsageError), match="TensorRT"):
        really(graph, inputs=("images", "w"), options=FREE)


def test_every_refused_node_is_named(really: Build) -> None:
    graph = model("float[2,3,3] images", "a = Det(images)\n b = Det(images)\n y = Add(a, b)")
    graph.graph.node[0].name = "block_03/Det_4"

    with pytest.raises(UnsupportedGraphError) as caught:
        really(graph)

    assert str(caught.value).startswith(
        "target trt: TensorRT's parser refuses model_trt.onnx: node 0 block_03/Det_4 (Det): "
    )
    assert "; node 1 (no name) (Det): " in str(caught.value)


def test_refusal_does_not_blame_the_missing_gpu(really: Build) -> None:
    graph = model("float[2] images, float16[2] z", "y = Add(images, z)")

    with pytest.raises(UnsupportedGraphError, match="must have same input types") as caught:
        really(graph, inputs=("images", "z"))

    assert "CUDA driver" not in str(caught.value)


def test_many_refused_nodes_are_counted(really: Build) -> None:
    nodes = [f"a{index} = Det(images)" for index in range(20)]
    graph = model("float[2,3,3] images", "\n".join((*nodes, "y = Neg(a0)")))

    with pytest.raises(UnsupportedGraphError, match=r"node 7 \(no name\) \(Det\): .*; and 12 more$"):
        really(graph)


def test_failed_build_says_what_tensorrt_said(really: Build) -> None:
    top = "y, i = TopK<axis = -1>(images, k)"
    graph = model("float[1,5000] images", top, outputs="y, i", weights="int64[1] k = {4000}")

    with pytest.raises(TargetUnavailableError, match=r"builds no engine on NVIDIA H200: .*K exceeds the max"):
        really(graph)


def test_progress_reaches_its_end_and_never_goes_back(really: Build) -> None:
    heard: list[tuple[int, int]] = []

    really(2, progress=lambda done, parts: heard.append((done, parts)))

    assert heard == sorted(set(heard))
    assert heard[0] == (0, 1000)
    assert len(heard) > 10
    assert heard[-1] == (1000, 1000)


def test_interrupt_stops_the_build_and_comes_out(really: Build) -> None:
    heard: list[int] = []

    def interrupting(done: int, parts: int) -> None:
        heard.append(done)
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        really(2, progress=interrupting)

    assert len(heard) == 2  # nothing is reported after it


def test_bytes_that_are_no_timing_cache_are_refused(really: Build) -> None:
    with pytest.raises(UsageError, match=r"old\.cache is no cache of TensorRT .*NVIDIA H200.*delete it"):
        really(2, cache_file="old.cache", cache=b"of another GPU")


@pytest.mark.parametrize("version", ["10.14.1.48", "11.4.0.106"])
def test_build_follows_the_documented_order(
    world: World, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_version(version, monkeypatch)

    built = build(tmp_path)

    assert bytes(built.plan).endswith((tmp_path / "model_trt.onnx").read_bytes())
    assert built.warnings == ("a warning",)


def test_tensorrt_that_cannot_start_says_why(world: World, tmp_path: Path) -> None:
    world.start_error = "6: CUDA initialization failure with error: 35"

    with pytest.raises(TargetUnavailableError, match=r"cannot start: 6: CUDA .* error: 35; check .* driver"):
        build(tmp_path)


@pytest.mark.parametrize("refusal", ["none", "false", "logged"])
def test_stale_timing_cache_is_refused(world: World, refusal: str, tmp_path: Path) -> None:
    world.cache_refused = refusal

    with pytest.raises(UsageError, match=r"old\.cache is no cache of TensorRT 11\.4.*NVIDIA H200.*delete it"):
        build(tmp_path, cache_file="old.cache", cache=b"of another GPU")


@pytest.mark.parametrize("refusal", ["none", "false", "logged"])
def test_new_timing_cache_is_not_stale(world: World, refusal: str, tmp_path: Path) -> None:
    world.cache_refused = refusal

    assert build(tmp_path).cache == b"+measured"


def test_timing_cache_grows(world: World, tmp_path: Path) -> None:
    assert build(tmp_path, cache=b"measured before").cache == b"measured before+measured"


@pytest.mark.parametrize(
    ("level", "device", "words"),
    [
        pytest.param("ampere_plus", TURING, "8.0", id="ampere on turing"),
        pytest.param("same_compute_capability", VOLTA, "7.5", id="same on volta"),
    ],
)
def test_hardware_compatibility_of_a_newer_gpu_is_refused(level: Any, device: Device, words: str) -> None:
    with pytest.raises(UsageError, match=rf"{level}.*{words}.*{device.name}"):
        check_options(TrtOptions(hardware_compatibility=level), 2, device)


@pytest.mark.parametrize(
    ("level", "device"), [("ampere_plus", AMPERE), ("same_compute_capability", TURING), ("none", VOLTA)]
)
def test_hardware_compatibility_of_this_gpu_is_taken(level: Any, device: Device) -> None:
    check_options(TrtOptions(hardware_compatibility=level), 2, device)


@pytest.mark.parametrize(
    ("profile", "batch", "words"),
    [
        pytest.param((1, 8, 32), 8, r"\(1, 8, 32\).*fixed to batch 8", id="range for a static batch"),
        pytest.param((4, 4, 4), 8, "fixed to batch 8", id="another batch"),
        pytest.param((None, None, None), "batch", "free batch needs", id="no profile for a free batch"),
    ],
)
def test_profile_that_does_not_contain_the_batch_is_refused(
    profile: tuple[Any, Any, Any], batch: int | str, words: str
) -> None:
    chosen = TrtOptions(**dict(zip(("min_batch", "opt_batch", "max_batch"), profile, strict=True)))

    with pytest.raises(UsageError, match=words):
        check_options(chosen, batch, HOPPER)


def test_profile_of_the_static_batch_is_taken(really: Build) -> None:
    chosen = TrtOptions(min_batch=2, opt_batch=2, max_batch=2)

    check_options(chosen, 2, HOPPER)

    assert len(bytes(really(2, options=chosen).plan)) > 1000
