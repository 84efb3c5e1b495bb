"""Build, save, load and run, with a library that stands where Torch-TensorRT is."""

import pickle
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.errors import BundleError, GateError, TargetUnavailableError, UsageError
from exporter.rewrite import RewrittenProgram
from exporter.signature import Signature, TensorSpec
from exporter.targets.target import Artifact, EmitRequest
from exporter.targets.torch_trt import library
from exporter.targets.torch_trt.emit import FILE, emit
from exporter.targets.torch_trt.options import TorchTrtOptions
from exporter.targets.torch_trt.runner import TorchTrtRunner
from exporter.targets.torch_trt.target import TARGET
from tests.support.compiled import (
    REQUESTS,
    captured_family,
    compiled_groups,
    max_abs_error,
    reference,
    reference_groups,
)
from tests.support.families import family
from tests.unit.targets.torch_trt.conftest import install
from tests.unit.targets.torch_trt.stand_in import VERSIONS, StandIn

TOLERANCE = 1e-4
INPUT = TensorSpec(name="images", dtype="float32", shape=(2, 3, 4, 4))
OUTPUTS = (TensorSpec(name="logits", dtype="float32", shape=(2, 16)),)
SIGNATURE = Signature(inputs=(INPUT,), outputs=OUTPUTS)
ROOT = Path(__file__).resolve().parents[4]


def build(
    program: RewrittenProgram,
    folder: Path,
    options: TorchTrtOptions | None = None,
    shape: tuple[int | str, ...] = INPUT.shape,
) -> Artifact:
    given = replace(INPUT, shape=shape)
    request = EmitRequest(
        signature=Signature(inputs=(given,), outputs=OUTPUTS),
        metadata={"name": "vit"},
        options=options or TorchTrtOptions(),
    )
    return emit(TARGET, program, request, folder, device="cpu")


def images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(count, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_saved_program_equals_the_reference_with_its_matches(
    version: str, program: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(StandIn(version=version), monkeypatch)
    merged = captured_family("timm_vit").schedule(REQUESTS["constant"]).merged
    run = reference(family("timm_vit"), merged, "tome")

    vit_images = family("timm_vit").images(2).numpy()

    artifact = build(program, tmp_path, shape=vit_images.shape)
    assert artifact.probe is not None
    shipped, probed = artifact.runner(vit_images), artifact.probe({"images": vit_images})

    assert list(shipped) == ["logits"] and [path.name for path in tmp_path.iterdir()] == [FILE]
    assert max_abs_error(torch.from_numpy(shipped["logits"]), run.output) < TOLERANCE
    for index, block in enumerate(program.merging_blocks):
        record = torch.from_numpy(probed[f"match_{index}"])
        assert compiled_groups(record, program.merged[block]) == reference_groups(run, block)
    assert artifact.details == {"engines": 1, "fallback": {}, "matches": "kept"}


def test_dropped_matches_are_read_from_a_second_program(
    stand_in: StandIn, small: RewrittenProgram, tmp_path: Path
) -> None:
    artifact = build(small, tmp_path, TorchTrtOptions(matches="dropped"))
    assert artifact.probe is not None

    probed = artifact.probe({"images": images(2)})

    assert len(stand_in.settings) == 2
    assert len(torch.export.load(str(tmp_path / FILE)).graph_signature.user_outputs) == 1
    assert len(probed) == 1 + len(small.merging_blocks)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_options_reach_the_builder(stand_in: StandIn, small: RewrittenProgram, tmp_path: Path) -> None:
    options = TorchTrtOptions(
        optimization_level=5,
        workspace_mb=3,
        min_block_size=2,
        hardware_compatible=True,
        timing_cache=str(tmp_path / "kept.cache"),
    )

    artifact = build(small, tmp_path, options)

    (settings,) = stand_in.settings
    assert settings["optimization_level"] == 5
    assert settings["workspace_size"] == 3 * 1024 * 1024
    assert settings["min_block_size"] == 2
    assert settings["hardware_compatible"] is True
    assert (tmp_path / "kept.cache").exists()
    assert artifact.built_from["hardware_compatible"] == "True"


def test_timing_cache_that_nobody_asked_for_does_not_stay(
    stand_in: StandIn, small: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    build(small, tmp_path)

    (settings,) = stand_in.settings
    assert Path(settings["timing_cache_path"]).is_relative_to(scratch)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(("version", "typed"), [("2.11.0", True), ("2.14.0", None)])
def test_types_are_explicit_in_every_version(
    version: str,
    typed: bool | None,
    small: RewrittenProgram,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = install(StandIn(version=version), monkeypatch)

    build(small, tmp_path)

    assert asked.settings[0].get("use_explicit_typing") is typed


def test_operator_left_to_pytorch_fails_the_gate_and_names_it(
    stand_in: StandIn, small: RewrittenProgram, tmp_path: Path
) -> None:
    stand_in.left_over = True

    with pytest.raises(GateError, match="2 operators .* expected at most 0: aten.neg.default \\(2x\\)"):
        build(small, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_operator_left_to_pytorch_is_reported_where_it_is_allowed(
    stand_in: StandIn, small: RewrittenProgram, tmp_path: Path
) -> None:
    stand_in.left_over = True

    artifact = build(small, tmp_path, TorchTrtOptions(max_fallback=2))

    assert artifact.details["fallback"] == {"aten.neg.default": 2}


def test_failing_build_is_one_line(stand_in: StandIn, small: RewrittenProgram, tmp_path: Path) -> None:
    stand_in.failure = RuntimeError("no kernel\nfor this layer")

    with pytest.raises(TargetUnavailableError, match="cannot build an engine here: no kernel$"):
        build(small, tmp_path)


def test_dynamic_batch_is_refused(stand_in: StandIn, small: RewrittenProgram, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a static batch.*--batch N"):
        build(small, tmp_path, shape=("batch", 3, 4, 4))


def test_saved_program_names_no_file_of_this_machine(
    stand_in: StandIn, small: RewrittenProgram, tmp_path: Path
) -> None:
    build(small, tmp_path)

    with zipfile.ZipFile(tmp_path / FILE) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert str(ROOT).encode() not in content
    assert str(Path(torch.__file__).parents[1]).encode() not in content


def test_runner_pads_travels_and_refuses(stand_in: StandIn, small: RewrittenProgram, tmp_path: Path) -> None:
    runner = build(small, tmp_path).runner

    travelled = pickle.loads(pickle.dumps(runner))

    assert travelled._engine is None
    assert travelled(images(3))["logits"].shape == (3, 16)
    np.testing.assert_allclose(
        travelled(images(3))["logits"][:2], runner(images(2))["logits"], atol=TOLERANCE
    )
    with pytest.raises(UsageError, match="expected float32"):
        runner(images(2).astype(np.float64))


def test_cuda_graphs_are_the_librarys_own(stand_in: StandIn, small: RewrittenProgram, tmp_path: Path) -> None:
    runner = build(small, tmp_path, TorchTrtOptions(cuda_graph=True)).runner
    assert stand_in.cuda_graphs == 1

    plain = TARGET.open(tmp_path / FILE, SIGNATURE, TorchTrtOptions())
    assert isinstance(plain, TorchTrtRunner)
    results = replace(plain, device="cpu").enqueue(images(2), cuda_graph=True)()

    assert stand_in.cuda_graphs == 2
    with pytest.raises(UsageError, match="expected a batch of 2, got 3 rows"):
        plain.enqueue(images(3), cuda_graph=False)
    assert isinstance(results, tuple | list)
    np.testing.assert_allclose(results[0].numpy(), runner(images(2))["logits"], atol=TOLERANCE)


def test_engine_of_another_gpu_is_refused(
    stand_in: StandIn, small: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(small, tmp_path)
    monkeypatch.setattr(library, "compute_capability", lambda: "80")

    with pytest.raises(TargetUnavailableError, match="built with compute_capability 90, and this is 80"):
        TARGET.open(tmp_path / FILE, SIGNATURE, TorchTrtOptions()).load()


def test_compatible_engine_is_loaded_on_another_gpu(
    stand_in: StandIn, small: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(small, tmp_path, TorchTrtOptions(hardware_compatible=True))
    monkeypatch.setattr(library, "compute_capability", lambda: "80")

    TARGET.open(tmp_path / FILE, SIGNATURE, TorchTrtOptions()).load()


def test_program_that_the_library_cannot_load_is_a_damaged_bundle(
    stand_in: StandIn, small: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(small, tmp_path)

    def fail(file_path: str) -> None:
        raise ValueError("not a program\nat all")

    monkeypatch.setattr(library.load_library(), "load", fail)

    with pytest.raises(BundleError, match="cannot load it: not a program$"):
        TARGET.open(tmp_path / FILE, SIGNATURE, TorchTrtOptions()).load()


@pytest.mark.parametrize("content", [None, b"", b"not an archive"], ids=["missing", "empty", "garbage"])
def test_damaged_file_is_a_damaged_bundle(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)

    with pytest.raises(BundleError, match="expected a program saved by this package"):
        TARGET.open(tmp_path / FILE, SIGNATURE, TorchTrtOptions()).load()
