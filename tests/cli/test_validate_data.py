"""`validate --data`: what it finds out, what sabotage it notices, how it goes on after a stop, what it leaves."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from exporter.bundle import load_bundle
from exporter.models import ModelRequest, shipped_data
from exporter.targets import Array
from exporter.targets.onnx.runner import OnnxRunner
from exporter.validation import outputs
from tests.cli.commands import MANIFEST_KEYS, manifest, refused, reseal, run, tree

COUNT = 60
CHUNK = 12


@pytest.fixture
def copy(digits_bundle: Path, tmp_path: Path) -> Path:
    """`vit_digits` in a place of its own."""
    shutil.copytree(digits_bundle, tmp_path / "place" / "bundle")
    return tmp_path / "place" / "bundle"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the scans that ship with the model, in a folder per class."""
    folder = tmp_path_factory.mktemp("scans")
    shipped = shipped_data(ModelRequest(model="vit_digits"))
    assert shipped is not None
    for number in range(COUNT):
        place = folder / str(shipped.labels[number])
        place.mkdir(exist_ok=True)
        Image.fromarray(shipped.images_BHWC[number]).save(place / f"{number:02}.png")
    return folder


def change_weights(bundle: Path, change: Callable[[str, Array], Array | None]) -> None:
    """Change initializers of the engine by name; None leaves one as it is. At least one has to change."""
    model = onnx.load(bundle / "model.onnx")
    changed = 0
    for tensor in model.graph.initializer:
        other = change(tensor.name, numpy_helper.to_array(tensor).copy())
        if other is not None:
            tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
            changed += 1
    assert changed
    onnx.save(model, bundle / "model.onnx")
    reseal(bundle)


def swap_classes(name: str, weight: Array) -> Array | None:
    """Zeros are called ones, and ones zeros."""
    if name not in ("head.weight", "head.bias"):
        return None
    weight[[0, 1]] = weight[[1, 0]]
    return weight


def enlarge_one(name: str, weight: Array) -> Array | None:
    """One number of the head, a thousand times as large."""
    if name != "head.weight":
        return None
    weight[4, int(np.abs(weight[4]).argmax())] *= 1000
    return weight


# Sabotage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [swap_classes, enlarge_one])
def test_changed_weights_fail_the_parity_gate(
    copy: Path, change: Callable[[str, Array], Array | None]
) -> None:
    change_weights(copy, change)
    before = tree(copy.parent)

    complaint = refused(5, "validate", copy)

    assert "onnx" in complaint
    assert "max_abs_error" in complaint
    assert tree(copy.parent) == before


def test_swapped_classes_that_parity_lets_pass_fail_the_accuracy_gate(copy: Path, scans: Path) -> None:
    recipe = (copy / "recipe.yaml").read_text(encoding="utf-8")
    for key, value in (("max_abs_error", "1000.0"), ("mean_abs_error", "1000.0"), ("cosine", "0.0")):
        assert f"  {key}: null" in recipe
        recipe = recipe.replace(f"  {key}: null", f"  {key}: {value}")
    (copy / "recipe.yaml").write_text(recipe, encoding="utf-8")
    change_weights(copy, swap_classes)

    complaint = refused(6, "validate", copy, "--data", scans, "--max-drop", "2")

    found = json.loads((load_bundle(copy).path / "validation.json").read_text(encoding="utf-8"))
    lost = found["accuracy"]["dense"]["top1"] - found["accuracy"]["onnx"]["top1"]
    swapped = sum(len(list((scans / label).iterdir())) for label in ("0", "1"))
    assert found["data"]["n"] == COUNT
    assert lost == pytest.approx(100 * swapped / COUNT, abs=5)
    assert f"target onnx loses {lost:.2f} points of top-1, expected at most 2;" in complaint
    assert os.listdir(copy.parent) == ["bundle"]


def test_changed_byte_that_is_not_resealed_is_found_before_anything_runs(copy: Path, scans: Path) -> None:
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)

    assert "model.onnx has changed" in refused(8, "validate", copy, "--data", scans)
    assert os.listdir(copy.parent) == ["bundle"]


# Gates ----------------------------------------------------------------------------------------------


def test_too_little_agreement_fails_and_is_written_all_the_same(copy: Path, labelled_folder: Path) -> None:
    def other_class(self: OnnxRunner, images: Array) -> dict[str, Array]:
        right = honest(self, images)
        return right if len(images) == 1 else {name: -array for name, array in right.items()}

    honest = OnnxRunner.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxRunner, "__call__", other_class)
        complaint = refused(6, "validate", copy, "--data", labelled_folder, "--min-agreement", "90")

    assert "target onnx agrees with the dense model on 0.00 % of images" in complaint
    assert "at least 90 %" in complaint
    found = json.loads((load_bundle(copy).path / "validation.json").read_text(encoding="utf-8"))
    assert found["fidelity"]["onnx"]["top1_agreement"] == 0
    assert os.listdir(copy.parent) == ["bundle"]


def test_too_little_agreement_leaves_no_bundle(vit_dir: Path, labelled_folder: Path, workplace: Path) -> None:
    words = (f"hf:{vit_dir}", "--r", "12", "--data", labelled_folder, "--unlabelled")

    assert "target onnx agrees" in refused(6, *words, "--min-agreement", "100")


@pytest.mark.parametrize(
    "words", [("--max-drop", "1"), ("--min-agreement", "99"), ("--classes", "c.txt"), ("--unlabelled",)]
)
def test_what_is_asked_for_without_images_is_refused(vit_bundle: Path, words: tuple[str, ...]) -> None:
    assert "--data" in refused(2, "validate", vit_bundle, *words)


# What is left ---------------------------------------------------------------------------------------


def test_document_has_the_keys_of_the_contract_and_nothing_is_saved(copy: Path, scans: Path) -> None:
    before = tree(copy.parent)

    outcome = run("validate", copy, "--data", scans, "--no-save", "--json")

    assert (outcome.status, outcome.err) == (0, "")
    document = outcome.document
    assert document.keys() >= MANIFEST_KEYS | {"accuracy", "difference", "fidelity", "blocks", "data"}
    assert document["accuracy"].keys() == {"dense", "onnx"}
    assert all(each.keys() == {"top1", "top5", "n"} for each in document["accuracy"].values())
    assert document["difference"].keys() == {"onnx"}
    assert document["difference"]["onnx"].keys() >= {"top1", "interval"}
    low, high = document["difference"]["onnx"]["interval"]
    assert low <= document["difference"]["onnx"]["top1"] <= high
    exact = document["accuracy"]["onnx"]["top1"] - document["accuracy"]["dense"]["top1"]
    assert document["difference"]["onnx"]["top1"] == pytest.approx(exact)
    assert document["parity"]["onnx"]["passed"] is True
    assert document["parity"]["onnx"]["max_abs_error"] < 1e-4
    assert document["data"] == {"name": scans.name, "n": COUNT, "unreadable": []}
    assert tree(copy.parent) == before


def test_folder_that_cannot_be_written_advises_not_to_save(
    copy: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)

    complaint = refused(2, "validate", copy, "--data", scans)

    assert "not writable; give --no-save" in complaint


def test_damaged_images_are_named_and_left_out(copy: Path, scans: Path, tmp_path: Path) -> None:
    shutil.copytree(scans, tmp_path / "images")
    (tmp_path / "images" / "3" / "bad.png").write_bytes(b"no image")
    whole = next((tmp_path / "images" / "7").iterdir())
    (tmp_path / "images" / "7" / "cut.png").write_bytes(whole.read_bytes()[:80])
    others = manifest(copy)["files"]

    outcome = run("validate", copy, "--data", tmp_path / "images")

    assert outcome.status == 0, outcome.err
    for fact in ("2 left out", "3/bad.png", "parity onnx", "max error", "accuracy dense", "accuracy onnx"):
        assert fact in outcome.out
    found = json.loads((load_bundle(copy).path / "validation.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in found["data"]["unreadable"]] == ["3/bad.png", "7/cut.png"]
    assert found["data"]["n"] == found["accuracy"]["onnx"]["n"] == COUNT
    now = manifest(copy)["files"]
    changed = {name for name in others.keys() | now.keys() if others.get(name) != now.get(name)}
    assert changed == {"validation.json"}


# Stops ----------------------------------------------------------------------------------------------


def interrupted_after(chunks: int) -> Callable[..., None]:
    """Ctrl-C when as many chunks of images are stored."""
    honest, left = outputs._run, [chunks]

    def run_chunk(*arguments: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        honest(*arguments)

    return run_chunk


def figures(document: dict[str, Any]) -> dict[str, Any]:
    """What was measured; parity and speed are of a run."""
    keys = ("data", "accuracy", "difference", "fidelity", "blocks")
    return {key: document[key] for key in keys}


def test_an_interrupted_measurement_leaves_the_bundle_and_goes_on_where_it_was(
    copy: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(copy)
    monkeypatch.setattr(outputs, "CHUNK", CHUNK)
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "_run", interrupted_after(3))
        stopped = run("validate", copy, "--data", scans)
    assert stopped.status == 130
    assert stopped.err.splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in stopped.err
    (store,) = {path.name for path in copy.parent.iterdir()} - {"bundle"}
    assert store.startswith(".bundle.")
    assert tree(copy) == before
    seen: list[int] = []
    honest = OnnxRunner.__call__

    def counted(self: OnnxRunner, images: Array) -> dict[str, Array]:
        seen.append(len(images))
        return honest(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(OnnxRunner, "__call__", counted)
        resumed = run("validate", copy, "--data", scans, "--json")

    assert resumed.status == 0, resumed.err
    assert sum(seen) == 1 + COUNT - 3 * CHUNK, "the sample, and the images that were left"
    assert os.listdir(copy.parent) == ["bundle"]
    whole = run("validate", copy, "--data", scans, "--json", "--no-save")
    assert figures(resumed.document) == figures(whole.document)
