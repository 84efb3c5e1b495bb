"""int8 of a trained model, with calibration images from its training set: accuracy, matches, and what is shipped."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]

from exporter.models import ModelRequest, load, normalize, shipped_data
from exporter.models.shipped.digits import enlarge_scans, held_out_scans
from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from exporter.targets import Artifact, EmitRequest, Signature, TensorSpec, target
from exporter.targets.onnx.options import OnnxOptions
from tests.support.compiled import capture_model

BATCH, MOST_LOST = 32, 1.0
VIT_DIGITS = ModelRequest(model="vit_digits")


@cache
def images_and_labels() -> tuple[Any, Any]:
    """Return the held-out scans as the model takes them."""
    data = shipped_data(VIT_DIGITS)
    assert data is not None
    return as_input(data.images_BHWC), data.labels


def as_input(images_BHWC: Any) -> Any:
    preprocess = load(VIT_DIGITS).preprocess
    assert preprocess is not None
    return normalize(np.ascontiguousarray(images_BHWC.transpose(0, 3, 1, 2)), preprocess)


def training_images(count: int) -> Any:
    """Return scans that the model may have seen, none of them held out."""
    scans = load_digits().images.astype(np.uint8)
    held_out = {scan.tobytes() for scan in held_out_scans().scans_BHW}
    return as_input(
        enlarge_scans(np.stack([each for each in scans if each.tobytes() not in held_out][:count]))
    )


@pytest.fixture(scope="module")
def program() -> RewrittenProgram:
    module = load(VIT_DIGITS).module
    assert isinstance(module, torch.nn.Module)
    return capture_model(module, 32).compile(ScheduleRequest(r=4), batch=BATCH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("int8")


@pytest.fixture(scope="module")
def artifact(program: RewrittenProgram, folder: Path) -> Artifact:
    request = EmitRequest(
        signature=Signature(
            inputs=(TensorSpec(name="images", dtype="float32", shape=(BATCH, 3, 32, 32)),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=(BATCH, 10)),),
        ),
        metadata={"name": "vit_digits"},
        options=OnnxOptions(),
        precision="int8",
        calibration=training_images(64),
    )
    return target("onnx").emit(program, request, folder)


def test_held_out_accuracy_stays_within_a_point(program: RewrittenProgram, artifact: Artifact) -> None:
    images, labels = images_and_labels()
    whole = len(images) // BATCH * BATCH
    eager = np.concatenate(
        [program(part)[0].numpy() for part in torch.from_numpy(images[:whole]).split(BATCH)]
    )
    integer = artifact.runner(images[:whole])["logits"]

    lost = (eager.argmax(1) == labels[:whole]).mean() - (integer.argmax(1) == labels[:whole]).mean()

    assert 100 * abs(lost) <= MOST_LOST
    assert (integer != eager).all()


def test_probe_is_the_quantised_model(artifact: Artifact, program: RewrittenProgram) -> None:
    images = images_and_labels()[0][:BATCH]
    assert artifact.probe is not None

    probed = artifact.probe({"images": images})

    np.testing.assert_array_equal(probed["logits"], artifact.runner(images)["logits"])
    assert len(probed) == 1 + len(program.merging_blocks)


def test_ships_one_small_file_with_integer_weights(artifact: Artifact, folder: Path) -> None:
    model = onnx.load(str(folder / artifact.file))
    integers = {each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.INT8}
    multiplied = {
        kind: sum(np.prod(each.dims) for each in model.graph.initializer if (each.name in integers) is kind)
        for kind in (True, False)
    }

    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert [output.name for output in model.graph.output] == ["logits"]
    assert multiplied[True] > 10 * multiplied[False]
