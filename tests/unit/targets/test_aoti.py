"""AOTInductor on the CPU: one small package, compiled once, against the independent eager reference."""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from exporter.signature import Signature, TensorSpec
from exporter.targets.aoti.emit import FILE
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.package import read_metadata
from exporter.targets.aoti.runner import AotiRunner
from exporter.targets.aoti.target import TARGET
from exporter.targets.target import Artifact, EmitRequest
from tests.support.compiled import (
    QUICKER,
    capture_model,
    compiled_groups,
    max_abs_error,
    reference,
    reference_groups,
)
from tests.support.families import IMAGE_SIZE, TWO_BLOCKS

TOLERANCE = 1e-4
MERGED, OTHERWISE = (4, 4), (6, 2)
NAME = TWO_BLOCKS.output_name
INPUT = TensorSpec(name="images", dtype="float32", shape=("batch", 3, IMAGE_SIZE, IMAGE_SIZE))
OUTPUTS = (TensorSpec(name=NAME, dtype="float32", shape=("batch", 10)),)
SIGNATURE = Signature(inputs=(INPUT,), outputs=OUTPUTS)


EXAMPLE = Path(__file__).resolve().parents[3] / "docs/examples/aoti_cpp"


@dataclass(frozen=True, kw_only=True)
class Built:
    """A package, what it was compiled from, and what the process looked like around it."""

    artifact: Artifact
    program: RewrittenProgram
    folder: Path
    scratch: Path
    environment: tuple[dict[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Compiled with a free batch axis, which a runner of a static batch can use as well: once for all tests."""
    folder, scratch = tmp_path_factory.mktemp("aoti"), tmp_path_factory.mktemp("scratch")
    captured = capture_model(TWO_BLOCKS.model())
    program = captured.compile(ScheduleRequest(r_per_layer=MERGED), dynamic_batch=True)
    request = EmitRequest(
        signature=SIGNATURE,
        metadata={"name": "vit for a test"},
        options=AotiOptions(),
    )
    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patched, torch._inductor.config.patch(QUICKER):
        patched.setattr(tempfile, "tempdir", str(scratch))
        artifact = TARGET.emit(program, request, folder)
    return Built(
        artifact=artifact,
        program=program,
        folder=folder,
        scratch=scratch,
        environment=(before, dict(os.environ)),
    )


def images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return TWO_BLOCKS.images(count).numpy()


def runner_of(built: Built) -> AotiRunner:
    assert isinstance(built.artifact.runner, AotiRunner)
    return built.artifact.runner


def test_package_equals_the_reference_at_every_batch(built: Built) -> None:
    run = reference(TWO_BLOCKS, MERGED, "tome", batch=3)

    for batch in (1, 2, 3):
        output = torch.from_numpy(built.artifact.runner(images(3)[:batch])[NAME])
        assert max_abs_error(output, run.output[:batch]) < TOLERANCE


def test_package_differs_from_the_reference_of_another_schedule(built: Built) -> None:
    run = reference(TWO_BLOCKS, OTHERWISE, "tome")

    output = torch.from_numpy(built.artifact.runner(images(2))[NAME])

    assert max_abs_error(output, run.output) > 10 * TOLERANCE


def test_shipped_code_makes_the_matches_of_the_reference(built: Built) -> None:
    run = reference(TWO_BLOCKS, MERGED, "tome")
    assert built.artifact.probe is not None

    probed = built.artifact.probe({"images": images(2)})

    assert list(probed) == [NAME, *(f"match_{index}" for index in range(len(built.program.merging_blocks)))]
    for index, block in enumerate(built.program.merging_blocks):
        record = torch.from_numpy(probed[f"match_{index}"])
        assert compiled_groups(record, built.program.merged[block]) == reference_groups(run, block)


def test_runner_returns_the_outputs_only(built: Built) -> None:
    assert list(built.artifact.runner(images(2))) == [NAME]


def test_short_last_batch_is_padded_and_cut_off_again(built: Built) -> None:
    static = replace(
        runner_of(built), signature=replace(SIGNATURE, inputs=(replace(INPUT, shape=(2, *INPUT.shape[1:])),))
    )

    outputs = static(images(3))

    assert outputs[NAME].shape == (3, 10)
    np.testing.assert_allclose(outputs[NAME], built.artifact.runner(images(3))[NAME], atol=TOLERANCE)


def test_runner_travels_without_its_package(built: Built) -> None:
    travelled = pickle.loads(pickle.dumps(built.artifact.runner))

    assert travelled._engine is None
    np.testing.assert_array_equal(travelled(images(1))[NAME], built.artifact.runner(images(1))[NAME])


def test_threads_are_set_when_the_package_is_loaded(built: Built) -> None:
    before = torch.get_num_threads()
    try:
        replace(runner_of(built), threads=2, _engine=None).load()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_package_is_the_only_thing_left_behind(built: Built) -> None:
    assert [path.name for path in built.folder.iterdir()] == [FILE]
    assert list(built.scratch.iterdir()) == []
    assert built.environment[0] == built.environment[1]


def test_package_holds_no_source_and_no_path_of_this_machine(built: Built) -> None:
    with zipfile.ZipFile(built.folder / FILE) as archive:
        names = archive.namelist()
        content = b"".join(archive.read(name) for name in names)
        sources = [archive.read(name) for name in names if name.endswith(".cpp")]

    assert b"".join(sources) == b""
    assert str(built.scratch).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content


def test_package_says_what_it_was_built_from(built: Built) -> None:
    said, metadata = built.artifact.built_from, read_metadata(built.folder / FILE)

    assert said["torch"] == metadata["exporter_torch"] == torch.__version__
    assert said["device"] == metadata["AOTI_DEVICE_KEY"] == "cpu"
    assert said["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert said["vector_instructions"] == metadata["AOTI_CPU_ISA"]
    assert said["instructions"] == "native"
    assert metadata["name"] == "vit for a test"


def test_what_was_written_can_be_opened_without_what_wrote_it(built: Built) -> None:
    opened = TARGET.open(built.folder / FILE, SIGNATURE, AotiOptions())

    np.testing.assert_array_equal(opened(images(1))[NAME], built.artifact.runner(images(1))[NAME])


def test_example_in_cpp_is_built_and_computes_what_the_reference_does(built: Built, tmp_path: Path) -> None:
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=tools)
    assert cmake, "cmake comes with the extra dev"
    run = reference(TWO_BLOCKS, MERGED, "tome", batch=3)
    (tmp_path / "images.f32").write_bytes(images(3).tobytes())

    def call(*arguments: str | Path) -> str:
        return subprocess.run(
            arguments, env={**os.environ, "PATH": tools}, check=True, capture_output=True, text=True
        ).stdout

    call(cmake, "-G", "Ninja", "-S", EXAMPLE, "-B", tmp_path, f"-DTORCH_ROOT={Path(torch.__file__).parent}")
    call(cmake, "--build", tmp_path)
    shape = f"3,3,{IMAGE_SIZE},{IMAGE_SIZE}"
    said = call(
        tmp_path / "run_package", built.folder / FILE, tmp_path / "images.f32", shape, tmp_path / "logits.f32"
    )

    output = torch.from_numpy(np.fromfile(tmp_path / "logits.f32", np.float32).reshape(3, 10))
    assert said == "[3, 10]\n"
    assert max_abs_error(output, run.output) < TOLERANCE
