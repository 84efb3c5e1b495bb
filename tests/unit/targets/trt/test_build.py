"""The build sequence against the recording stand-in: what is asked of TensorRT, and what its refusals become."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import TargetUnavailableError, UnsupportedGraphError, UsageError
from exporter.targets.trt.build import BuildRequest, build_plan, check_options
from exporter.targets.trt.device import Device
from exporter.targets.trt.options import TrtOptions
from tests.support.hand_made_onnx import write_doubling
from tests.unit.targets.trt import stand_in
from tests.unit.targets.trt.conftest import HOPPER, use_version
from tests.unit.targets.trt.recording import Disorder, World

AMPERE = Device(name="NVIDIA A100", capability=(8, 0))
TURING = Device(name="NVIDIA T4", capability=(7, 5))
VOLTA = Device(name="NVIDIA V100", capability=(7, 0))


def build(folder: Path, batch: int | str = 2, **further: Any) -> Any:
    path = folder / "model_trt.onnx"
    write_doubling(path, batch)
    request = BuildRequest(inputs=("images",), options=TrtOptions(), device=HOPPER)
    return build_plan(stand_in, path, replace(request, **further))


@pytest.mark.parametrize("version", ["10.14.1.48", "10.16.1.11", "11.4.0.106"])
def test_build_follows_the_documented_order(
    world: World, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_version(version, monkeypatch)

    built = build(tmp_path)

    assert bytes(built.plan).endswith((tmp_path / "model_trt.onnx").read_bytes())
    assert built.warnings == ("a warning",)


def options(**chosen: Any) -> TrtOptions:
    return TrtOptions(**chosen)


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
    world: World, chosen: TrtOptions, flags: set[str], tmp_path: Path
) -> None:
    build(tmp_path, options=chosen)

    assert world.flags == flags


def test_options_become_settings(world: World, tmp_path: Path) -> None:
    chosen = TrtOptions(workspace_mb=4096, builder_level=5, hardware_compatibility="ampere_plus")

    build(tmp_path, options=chosen)

    assert world.settings["workspace"] == 4 * 2**30
    assert world.settings["builder_optimization_level"] == 5
    assert world.settings["hardware_compatibility_level"].name == "AMPERE_PLUS"
    assert world.settings["profiling_verbosity"].name == "DETAILED"


def test_workspace_stays_tensorrts_own_without_a_limit(world: World, tmp_path: Path) -> None:
    build(tmp_path)

    assert "workspace" not in world.settings


def test_free_batch_is_built_with_its_profile(world: World, tmp_path: Path) -> None:
    chosen = TrtOptions(min_batch=1, opt_batch=8, max_batch=32)

    plan = bytes(build(tmp_path, "batch", options=chosen).plan)

    assert b'"shapes": {"images": [[1, 2], [8, 2], [32, 2]]}' in plan


def test_free_batch_without_its_profile_would_be_noticed(world: World, tmp_path: Path) -> None:
    with pytest.raises(Disorder, match="without a profile"):
        build(tmp_path, "batch")


def test_every_refused_node_is_named(world: World, tmp_path: Path) -> None:
    world.parser_errors = [
        (12, "block_03/Softmax_4", "Softmax", "axis out of range"),
        (30, "", "ScatterND", "reduction is\nnot supported"),
    ]

    with pytest.raises(UnsupportedGraphError) as caught:
        build(tmp_path)

    assert str(caught.value) == (
        "target trt: TensorRT's parser refuses model_trt.onnx: "
        "node 12 block_03/Softmax_4 (Softmax): axis out of range; "
        "node 30 (no name) (ScatterND): reduction is not supported"
    )


def test_many_refused_nodes_are_counted(world: World, tmp_path: Path) -> None:
    world.parser_errors = [(index, f"n{index}", "Foo", "no") for index in range(20)]

    with pytest.raises(UnsupportedGraphError, match=r"node 7 n7 \(Foo\): no; and 12 more$"):
        build(tmp_path)


def test_failed_build_says_what_tensorrt_said(world: World, tmp_path: Path) -> None:
    world.build_error = "Error Code 10: Could not find any implementation for node {ForeignNode}"

    with pytest.raises(TargetUnavailableError, match=r"11\.4\.0\.106 .* NVIDIA H200: Error Code 10: Could"):
        build(tmp_path)


def test_tensorrt_that_cannot_start_says_why(world: World, tmp_path: Path) -> None:
    world.start_error = "6: CUDA initialization failure with error: 35"

    with pytest.raises(TargetUnavailableError, match=r"cannot start: 6: CUDA .* error: 35; check .* driver"):
        build(tmp_path)


def test_progress_reaches_its_end_and_never_goes_back(world: World, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []

    build(tmp_path, progress=lambda done, parts: heard.append((done, parts)))

    assert heard == sorted(set(heard))
    assert heard[0] == (0, 1000)
    assert (250, 1000) in heard  # two of four steps, within the first of two
    assert heard[-1] == (1000, 1000)


def test_interrupt_stops_the_build_and_comes_out(world: World, tmp_path: Path) -> None:
    heard: list[int] = []

    def interrupting(done: int, parts: int) -> None:
        heard.append(done)
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, progress=interrupting)

    assert heard == [0, 125]  # one of four steps, within the first of two; nothing is reported after it


@pytest.mark.parametrize("refusal", ["none", "false", "logged"])
def test_stale_timing_cache_is_refused(world: World, refusal: str, tmp_path: Path) -> None:
    world.cache_refused = refusal
    chosen = TrtOptions(timing_cache="old.cache")

    with pytest.raises(UsageError, match=r"old\.cache is no cache of TensorRT 11\.4.*NVIDIA H200.*delete it"):
        build(tmp_path, options=chosen, cache=b"of another GPU")


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


def test_profile_of_the_static_batch_is_taken(world: World, tmp_path: Path) -> None:
    chosen = TrtOptions(min_batch=2, opt_batch=2, max_batch=2)

    check_options(chosen, 2, HOPPER)

    assert b'"shapes": {}' in bytes(build(tmp_path, options=chosen).plan)
