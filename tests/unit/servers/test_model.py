"""`model.py` of a packed bundle, run as Triton runs it, against the bundle's own sample and preprocessing."""

import importlib.util
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporter.bundle import Bundle
from exporter.models import preprocess_image
from exporter.servers import Packed
from exporter.signature import Array
from tests.unit.servers.conftest import BATCH, PackIt


class Tensor:
    """Triton's tensor, as far as `model.py` goes."""

    def __init__(self, name: str, array: Array) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> Array:
        return self.array


class TritonError(str):
    INVALID_ARG = 3

    def __new__(cls, text: str, code: int) -> "TritonError":
        assert code == cls.INVALID_ARG
        return super().__new__(cls, text)


@pytest.fixture(autouse=True)
def utilities(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What Triton's stub has for models, and a fresh copy of what lies beside `model.py`."""
    module: Any = ModuleType("triton_python_backend_utils")
    module.Tensor, module.TritonError = Tensor, TritonError
    module.InferenceResponse = SimpleNamespace
    module.get_input_tensor_by_name = lambda request, name: Tensor(name, request[name])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "preprocessing"]:
        del sys.modules[name]


def started(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model, initialised; the package itself is out of its reach."""
    version = packed.folder / "1"
    spec = importlib.util.spec_from_file_location("packed_model", version / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(str(version))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "exporter", None)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        place = {
            "model_repository": str(packed.folder),
            "model_version": "1",
            "model_instance_device_id": "0",
        }
        model.initialize(place)
    return model


def answers(model: Any, *requests: Mapping[str, Array]) -> list[Array]:
    return [response.output_tensors[0].as_numpy() for response in model.execute(requests)]


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_requests_of_a_batch_get_their_own_rows(
    packed: PackIt, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    sample = bundle.sample(target)
    model = started(packed(target=target), monkeypatch)
    rows = (slice(0, 1), slice(1, 4), slice(4, 7))

    found = answers(model, *({"images": sample["images"][row]} for row in rows))

    for row, logits in zip(rows, found, strict=True):
        np.testing.assert_allclose(logits, sample["logits"][row], atol=1e-4)
    (whole,) = answers(model, {"images": sample["images"]})
    np.testing.assert_allclose(whole, sample["logits"], atol=1e-4)


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_image_files_are_decoded_as_the_bundle_does(
    packed: PackIt, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = started(packed(accept="jpeg"), monkeypatch)
    pixels = np.random.default_rng(4).integers(0, 256, (50, 41, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels), Image.fromarray(pixels[:, :, 0]), Image.fromarray(pixels).convert("P")]
    files = [png(images[0], "JPEG"), png(images[1]), png(images[2])]
    preprocess = bundle.preprocess()
    assert preprocess is not None
    inputs = np.stack([preprocess_image(Image.open(io.BytesIO(file)), preprocess) for file in files])
    requests = [
        {"images": np.array([[file]], dtype=np.object_)} for file in (files[0], b"%!PS-Adobe", *files[1:])
    ]

    first, refused, *others = model.execute(requests)

    expected = bundle.runner("onnx")(inputs)["logits"]
    found = [response.output_tensors[0].as_numpy()[0] for response in (first, *others)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert refused.error == "image 0: expected a JPEG or PNG file, got neither"


def test_masks_that_are_not_ones_and_then_zeros_are_refused(
    packed: PackIt, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = started(packed(), monkeypatch)
    settings = {**model._settings, "inputs": ["images", "attention_mask"], "masks": ["attention_mask"]}
    model._settings, model._engine = settings, lambda inputs: [inputs["attention_mask"].sum(axis=1)]
    images = bundle.sample()["images"][:1]

    padded_left, padded_right = model.execute(
        [{"images": images, "attention_mask": np.array([mask])} for mask in ([0, 1, 1], [1, 1, 0])]
    )

    assert padded_left.error.startswith("attention_mask: expected ones")
    assert padded_right.output_tensors[0].as_numpy().tolist() == [2]


def test_changed_engine_stops_the_load(packed: PackIt, monkeypatch: pytest.MonkeyPatch) -> None:
    there = packed()
    engine = there.folder / "1" / "model.onnx"
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)

    with pytest.raises(ValueError, match=r"model.onnx: expected sha256 .* pack the bundle again"):
        started(there, monkeypatch)


def test_threads_are_shared_by_the_instances(
    packed: PackIt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = json.loads((packed(instances=3).folder / "1" / "settings.json").read_text())

    assert settings["instances"] == 3
    assert settings["batch"] == BATCH
    assert str(tmp_path) not in json.dumps(settings)
