"""A bundle opens only when every byte is as it was written."""

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from exporter.bundle import Bundle, load_bundle, recorded_weights_sha256
from exporter.bundle.manifest import Manifest
from exporter.errors import BundleError, UsageError
from exporter.models import Preprocess
from exporter.signature import Signature, TensorSpec

OPENVINO = ("openvino/model.bin", "openvino/model.xml")
FILES = ["manifest.json", "model.onnx", *OPENVINO, "recipe.yaml", "sample.npz"]


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    assert caught.value.exit_status == 8
    assert "\n" not in str(caught.value)
    return str(caught.value)


def flipped(place: float) -> Callable[[Path], object]:
    def flip(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[int(len(data) * place) if place >= 0 else -1] ^= 1
        file.write_bytes(data)

    return flip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flipped(0), id="first byte"),
        pytest.param(flipped(0.5), id="middle byte"),
        pytest.param(flipped(-1), id="last byte"),
        pytest.param(lambda file: os.truncate(file, 3), id="shortened"),
        pytest.param(Path.unlink, id="missing"),
    ],
)
def test_a_damaged_file_is_found_by_name(
    bundle_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(bundle_path / name)
    assert name in refused(bundle_path)


def test_a_changed_file_is_reported_with_both_hashes(bundle_path: Path) -> None:
    (bundle_path / "model.onnx").write_bytes(b"another engine")
    message = refused(bundle_path)
    assert "model.onnx has changed: expected sha256 " in message
    assert message.count("...") == 2


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    assert "got nothing there" in refused(tmp_path / "none")
    assert "got a file" in refused(tmp_path / "file")
    assert "got a folder without one" in refused(tmp_path / "empty")


@pytest.mark.parametrize("place", ["/", ".", "..", "a\0b", "circle", "circle/b"])
def test_a_place_without_a_name_of_its_own_is_refused_like_any(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path / "inner")
    refused(Path(place))


def test_a_bundle_opens_through_a_link_to_its_folder_and_travels(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(bundle_path)
    bundle = load_bundle(str(tmp_path / "latest"))
    again: Bundle = pickle.loads(pickle.dumps(bundle))
    assert again == bundle


def test_a_bundle_gives_its_sample_preprocessing_and_recipe(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    sample = bundle.sample()
    assert list(sample) == ["images", "logits"]
    np.testing.assert_array_equal(sample["images"], np.ones((1, 3, 8, 8), np.float32))
    assert isinstance(bundle.preprocess(), Preprocess)
    assert bundle.recipe().model.model == "vit_b16"


def test_a_sample_that_would_unpickle_is_refused(bundle_path: Path, manifest: Manifest) -> None:
    pickled = np.full((1, 3, 8, 8), {"a": 1}, dtype=object)
    np.savez(bundle_path / "sample.npz", images=pickled, logits=np.zeros((1, 10), np.float32))
    bundle = Bundle(path=bundle_path, manifest=replace(manifest, files={"sample.npz": "00" * 32}))
    with pytest.raises(BundleError, match="images: expected float32 .*, got object"):
        bundle.sample()


def test_a_runner_is_opened_on_the_artifact_with_the_manifests_tensors(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = SimpleNamespace(open_runner=lambda *given, **named: (given, named))
    monkeypatch.setitem(sys.modules, "exporter.targets", targets)
    (target, path), named = cast(Any, load_bundle(bundle_path).runner("openvino"))
    assert (target, path) == ("openvino", bundle_path / "openvino/model.xml")
    assert named["signature"] == Signature(
        inputs=(TensorSpec(name="images", dtype="float32", shape=("batch", 3, 8, 8)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 10)),),
    )


def test_a_target_that_is_not_there_is_refused_with_those_that_are(bundle_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_bundle(bundle_path).runner("onx")
    assert 'no target "onx"; this bundle has: onnx, openvino. Did you mean "onnx"?' in str(caught.value)


def test_the_weights_of_a_bundles_recipe_are_known(bundle_path: Path, tmp_path: Path) -> None:
    assert recorded_weights_sha256(bundle_path / "recipe.yaml") == "ab" * 32
    (tmp_path / "recipe.yaml").write_text("model: x")
    assert recorded_weights_sha256(tmp_path / "recipe.yaml") is None
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BundleError):
        recorded_weights_sha256(tmp_path / "recipe.yaml")
