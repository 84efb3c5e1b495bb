"""What the OpenVINO target writes: two files that depend on the program alone, the probe, attention in one kernel."""

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter.errors import TargetUnavailableError
from exporter.forms import Precision
from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from exporter.targets import Artifact, EmitRequest, Signature
from exporter.targets.openvino import device
from exporter.targets.openvino.attention_kernels import attention_kernels
from exporter.targets.openvino.library import load_library
from exporter.targets.openvino.options import OpenVinoOptions
from exporter.targets.openvino.target import TARGET
from tests.support.compiled import captured_family
from tests.support.families import family
from tests.support.tiny_vit import request_of

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")

SCHEDULE = ScheduleRequest(r_per_layer=(4, 4, 0, 0))
BLOCKS = len(captured_family("timm_vit").anatomy.blocks)
REQUEST = request_of(OpenVinoOptions(), metadata={"name": "tiny", "method": "tome", "exporter": "1.2.3"})


def emit(program: RewrittenProgram, folder: Path, request: EmitRequest = REQUEST) -> Artifact:
    out = folder / "out"
    out.mkdir()
    return TARGET.emit(program, request, out)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def program() -> RewrittenProgram:
    return captured_family("timm_vit").compile(SCHEDULE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emitted")


@pytest.fixture(scope="module")
def artifact(program: RewrittenProgram, folder: Path) -> Artifact:
    return emit(program, folder)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return family("timm_vit").images()


def test_ships_two_files_with_the_outputs_alone(artifact: Artifact, folder: Path) -> None:
    model = load_library().Core().read_model(folder / "out/openvino/model.xml")

    assert (artifact.target, artifact.file, artifact.opset) == ("openvino", "openvino/model.xml", None)
    assert set(files_in(folder / "out")) == {"openvino/model.xml", "openvino/model.bin"}
    assert [output.get_any_name() for output in model.outputs] == ["logits"]
    assert not [node for node in model.get_ops() if node.get_friendly_name().startswith("match_")]
    told = {key: str(model.get_rt_info(["framework", key]).astype(str)) for key in REQUEST.metadata}
    assert told == dict(REQUEST.metadata)


def test_runner_computes_what_the_eager_program_computes(
    program: RewrittenProgram, artifact: Artifact, images: torch.Tensor
) -> None:
    outputs = artifact.runner(images.numpy())

    np.testing.assert_allclose(outputs["logits"], program(images)[0].numpy(), atol=1e-5)


def test_probe_returns_the_matches_as_well(
    program: RewrittenProgram, artifact: Artifact, images: torch.Tensor
) -> None:
    assert artifact.probe is not None

    outputs = artifact.probe({"images": images.numpy()})
    expected = program(images)

    assert list(outputs) == ["logits", *(f"match_{index}" for index in range(len(program.merging_blocks)))]
    for got, wanted in zip(list(outputs.values())[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(got, wanted.numpy())


def test_files_depend_on_the_program_alone(
    program: RewrittenProgram, artifact: Artifact, folder: Path, tmp_path: Path
) -> None:
    emit(program, tmp_path)

    first, second = files_in(folder / "out"), files_in(tmp_path / "out")

    assert first == second
    for place in (tmp_path, folder, Path.home(), Path(__file__).parents[3]):
        assert not [name for name, content in second.items() if str(place).encode() in content]


def test_nodes_are_named_by_block_and_timed_by_block(
    artifact: Artifact, folder: Path, images: torch.Tensor, tmp_path: Path
) -> None:
    runner: Any = artifact.runner

    times = runner.profile(images.numpy(), calls=2, folder=tmp_path)

    assert list(times) == ["stem", *(f"block_{block:02}" for block in range(BLOCKS)), "head"]
    assert all(spent > 0 for spent in times.values())
    assert list(tmp_path.iterdir()) == []


def test_every_attention_is_one_kernel(artifact: Artifact) -> None:
    assert (artifact.details["attention_fused"], artifact.details["attentions"]) == (BLOCKS, BLOCKS)


def test_attention_that_is_not_fused_is_not_counted_as_fused(folder: Path, artifact: Artifact) -> None:
    model = load_library().Core().read_model(folder / "out/openvino/model.xml")

    assert attention_kernels(model, model) == (0, BLOCKS)


def test_programs_without_matches_need_no_probe(program: RewrittenProgram, tmp_path: Path) -> None:
    assert emit(replace(program, sites=()), tmp_path).probe is None


def kinds_of(runner: Any) -> set[tuple[str, str]]:
    """What the kernels of a runtime model are, each with the type that it computes in."""
    told = [node.get_rt_info() for node in runner.runtime_model().get_ops()]
    return {(info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in told}


def test_bf16_keeps_the_matching_in_fp32_and_a_free_batch_takes_any_number_of_images(
    program: RewrittenProgram, tmp_path: Path, images: torch.Tensor
) -> None:
    if "bf16" not in device.devices()["CPU"][1]:
        pytest.skip("this processor has no bf16")
    request = replace(
        REQUEST,
        precision="bf16",
        signature=Signature(
            inputs=(replace(REQUEST.signature.inputs[0], shape=("batch", 3, 24, 24)),),
            outputs=(replace(REQUEST.signature.outputs[0], shape=("batch", 10)),),
        ),
    )
    typed = captured_family("timm_vit").compile(SCHEDULE, precision="bf16", dynamic_batch=True)
    five = torch.cat([images, images.flip(3), images[:1].flip(2)])

    artifact = emit(typed, tmp_path, request)
    got = artifact.runner(five.numpy())["logits"]

    wanted = torch.cat([program(pair)[0] for pair in (five[:2], five[2:4], five[3:])])[[0, 1, 2, 3, 5]]
    assert 1e-4 < np.abs(got - wanted.numpy()).max() < 0.1
    assert artifact.probe is not None
    assert artifact.probe({"images": five.numpy()})["match_0"].shape == (5, *program(images)[1].shape[1:])
    kinds = kinds_of(artifact.runner)
    assert {precision for kind, precision in kinds if kind == "FullyConnected"} == {"bf16"}
    assert {precision for kind, precision in kinds if kind == "TopK"} <= {"f32", "i32"}
    assert ("MatMul", "f32") in kinds  # similarity, and the product with a one-hot matrix
    assert (artifact.details["attention_fused"], artifact.details["attentions"]) == (BLOCKS, BLOCKS)


def test_int8_multiplies_by_weights_in_bytes_and_by_nothing_else(
    program: RewrittenProgram, tmp_path: Path, images: torch.Tensor
) -> None:
    calibration = torch.cat([images, images.flip(3), images.flip(2)]).numpy()

    artifact = emit(program, tmp_path, replace(REQUEST, precision="int8", calibration=calibration))

    got, wanted = artifact.runner(images.numpy())["logits"], program(images)[0].numpy()
    assert 1e-4 < np.abs(got - wanted).max() < 0.1
    kinds = kinds_of(artifact.runner)
    assert ("FullyConnected", "u8") in kinds
    assert ("MatMul", "f32") in kinds
    assert {precision for kind, precision in kinds if kind in ("MatMul", "TopK")} <= {"f32", "i32"}


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_precision_that_the_device_lacks_is_refused_before_anything_is_written(
    program: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setitem(device.CAPABILITIES, precision, "a type that no processor has")

    with pytest.raises(TargetUnavailableError, match=f"target openvino: precision: .* got {precision}"):
        emit(program, tmp_path, replace(REQUEST, precision=precision))

    assert files_in(tmp_path) == {}


def test_compressed_weights_take_half_the_place_and_are_the_probes_as_well(
    program: RewrittenProgram, folder: Path, artifact: Artifact, tmp_path: Path, images: torch.Tensor
) -> None:
    smaller = emit(program, tmp_path, replace(REQUEST, options=OpenVinoOptions(compress_weights=True)))

    plain, compressed = files_in(folder / "out"), files_in(tmp_path / "out")
    assert set(compressed) == set(plain)
    assert len(compressed["openvino/model.bin"]) < 0.6 * len(plain["openvino/model.bin"])
    assert smaller.probe is not None
    got = smaller.runner(images.numpy())["logits"]
    np.testing.assert_allclose(got, program(images)[0].numpy(), atol=1e-2)
    np.testing.assert_allclose(got, smaller.probe({"images": images.numpy()})["logits"], atol=1e-6)
    assert np.abs(got - artifact.runner(images.numpy())["logits"]).max() > 1e-5


def test_a_full_disk_is_told_as_one(
    program: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(load_library(), "save_model", full)

    with pytest.raises(OSError, match="No space left"):
        emit(program, tmp_path)


def test_nodes_that_openvino_numbers_through_the_process_are_named_by_place(
    folder: Path, artifact: Artifact
) -> None:
    names = re.findall(
        r'<layer id="\d+" name="([^"]*)" type="MVN"', (folder / "out/openvino/model.xml").read_text()
    )

    assert len(names) == 2 * BLOCKS + 1
    assert [name for name in names if not re.fullmatch(r"(stem|block_\d\d|head)/\w+", name)] == []
