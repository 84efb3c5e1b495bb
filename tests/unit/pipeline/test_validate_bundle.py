"""A bundle is measured again: what it says of itself afterwards, and what is left as it was."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import exporter
from exporter.bundle import load_bundle
from exporter.errors import UsageError
from exporter.pipeline import validate
from exporter.records import canonical_json
from exporter.targets import Array
from exporter.targets.onnx.runner import OnnxRunner
from tests.unit.pipeline.conftest import ClipDigits

TAKEN = 24


@pytest.fixture
def copy(clip: ClipDigits, tmp_path: Path) -> exporter.Bundle:
    """`clip_digits` with both towers, in a place of its own."""
    shutil.copytree(clip.bundle.path, tmp_path / "place" / "bundle")
    return load_bundle(tmp_path / "place" / "bundle")


@pytest.fixture
def few(clip: ClipDigits, tmp_path: Path) -> dict[str, object]:
    """Some of the scans as files, with their captions, class names and one template: keys of a recipe."""
    captions, names = clip.shipped.captions, clip.shipped.class_names
    assert captions is not None
    assert names is not None
    folder = tmp_path / "few"
    folder.mkdir()
    for number in range(TAKEN):
        Image.fromarray(clip.shipped.images_BHWC[number]).save(folder / f"{number:02}.png")
    labels = [f"{number:02}.png,{clip.shipped.labels[number]}" for number in range(TAKEN)]
    pairs = [f"{number:02}.png,{captions[number]}" for number in range(TAKEN)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *labels]), encoding="utf-8")
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *pairs]), encoding="utf-8")
    (folder / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    (folder / "templates.txt").write_text("a scan of the digit {}", encoding="utf-8")
    files = {
        "data": "labels.csv",
        "pairs": "pairs.csv",
        "classes": "classes.txt",
        "templates": "templates.txt",
    }
    return {f"validate.{key}": str(folder / name) for key, name in files.items()}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_both_towers_are_measured_by_their_own_engines(
    copy: exporter.Bundle, few: dict[str, object], clip: ClipDigits, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, list[Array]] = {}
    honest = OnnxRunner.__call__

    def spied(self: OnnxRunner, images: Array) -> dict[str, Array]:
        given.setdefault(str(self.path.relative_to(copy.path)), []).append(images)
        return honest(self, images)

    monkeypatch.setattr(OnnxRunner, "__call__", spied)
    validated = validate(copy.path, few)

    prompts = clip.ids([f"a scan of the digit {name}" for name in clip.shipped.class_names or ()])
    captions = clip.ids(list(dict.fromkeys((clip.shipped.captions or ())[:TAKEN])))
    assert [each.tolist() for each in given["text/model.onnx"]] == [prompts.tolist(), captions.tolist()]
    measured = validated.measured
    assert measured is not None
    record = measured.record
    assert record.accuracy["dense"].n == TAKEN
    assert record.accuracy["dense"].top1 > 80
    assert record.retrieval["onnx"].images == TAKEN
    assert record.retrieval["onnx"].texts == len(captions)
    tree = json.loads((copy.path / "validation.json").read_text(encoding="utf-8"))
    assert tree == json.loads(canonical_json(record))
    assert load_bundle(copy.path).manifest.files.keys() == copy.manifest.files.keys()
    assert os.listdir(copy.path.parent) == ["bundle"]


def test_the_text_engine_is_a_bundle_of_its_own(copy: exporter.Bundle) -> None:
    before = bytes_of(copy.path)

    validated = validate(copy.path / "text")

    assert validated.parity["onnx"].passed
    assert validated.parity["onnx"].comparisons.keys() == {"sample/embedding"}
    assert validated.measured is None
    assert bytes_of(copy.path) == before


@pytest.mark.parametrize("key", ["validate.data", "validate.pairs", "validate.classes"])
def test_a_text_tower_cannot_be_measured_on_images(
    copy: exporter.Bundle, few: dict[str, object], key: str
) -> None:
    with pytest.raises(UsageError, match="text"):
        validate(copy.path / "text", {key: few[key]})


def test_captions_alone_measure_retrieval_and_the_directions(
    copy: exporter.Bundle, few: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bytes_of(copy.path)
    during: list[str] = []
    honest = OnnxRunner.__call__

    def spied(self: OnnxRunner, images: Array) -> dict[str, Array]:
        during.extend(os.listdir(copy.path.parent))
        return honest(self, images)

    monkeypatch.setattr(OnnxRunner, "__call__", spied)
    validated = validate(copy.path, {"validate.pairs": few["validate.pairs"]}, save=False)

    measured = validated.measured
    assert measured is not None
    record = measured.record
    assert record.retrieval
    assert (record.task, record.accuracy) == (None, {})
    assert record.fidelity["onnx"].top1_agreement is None
    assert np.isfinite(record.fidelity["onnx"].cosine_min)
    assert bytes_of(copy.path) == before
    assert set(during) == set(os.listdir(copy.path.parent)) == {"bundle"}, "nothing is written beside it"


def test_words_that_the_model_does_not_know_are_refused_before_any_image_runs(
    copy: exporter.Bundle, few: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos.txt").write_text("a photo of a {}", encoding="utf-8")
    monkeypatch.setattr("exporter.pipeline.measure.collect", lambda *_, **__: pytest.fail("images were run"))

    with pytest.raises(UsageError, match="photo"):
        validate(copy.path, {**few, "validate.templates": str(tmp_path / "photos.txt")}, workers=0)

    assert [path.name for path in copy.path.parent.iterdir()] == ["bundle"]


def test_second_validation_on_the_same_images_at_the_same_time_is_refused(
    copy: exporter.Bundle, few: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(*_: object, **__: object) -> None:
        validate(copy.path, few, workers=0)

    monkeypatch.setattr("exporter.pipeline.measure.collect", collect)

    with pytest.raises(UsageError, match="another process is validating"):
        validate(copy.path, few, workers=0)
