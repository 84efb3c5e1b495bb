"""Accuracy, its paired difference and interval, on logits made by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor, fx

from exporter.errors import UsageError
from exporter.models import Preprocess
from exporter.validation import AccuracyReport, LabelledImages, image_folder, labelled_arrays, measure

Array = npt.NDArray[Any]

PREPROCESS = Preprocess(
    image_size=(4, 4), interpolation="bilinear", crop_fraction=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)


def numbered(labels: Sequence[int]) -> LabelledImages:
    """Images of one colour each, which is their number, so that a table can answer for them."""
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8)
    return labelled_arrays(pixels, np.asarray(labels))


@dataclass(frozen=True, kw_only=True)
class Table:
    """Answers with the row of a table that the image's colour names."""

    logits: Array

    def rows(self, images: Array) -> Array:
        """Rows for a batch."""
        level = images.reshape(len(images), -1)[:, 0].astype(np.float64)
        rows: Array = self.logits[np.rint(level if images.dtype == np.uint8 else 255 * level).astype(int)]
        return rows

    def dense(self, images: Tensor) -> tuple[Tensor]:
        """As the dense program."""
        return (torch.from_numpy(self.rows(images.numpy())),)

    def __call__(self, images: Array) -> dict[str, Array]:
        """As a runner."""
        return {"logits": self.rows(images)}


def one_hot(classes: Sequence[int], count: int = 10) -> Table:
    return Table(logits=np.eye(count, dtype=np.float32)[list(classes)])


def report(labels: Sequence[int], dense: Table, engine: Table, **layout: bool) -> AccuracyReport:
    return measure(
        numbered(labels),
        PREPROCESS,
        cast(fx.GraphModule, dense.dense),
        {"onnx": engine},
        **({"as_bytes": False, "channels_last": False} | layout),
    )


def test_counts_are_exact() -> None:
    labels = [0, 1, 2, 3]

    found = report(labels, one_hot([0, 1, 2, 9]), one_hot([0, 9, 9, 9]))

    assert found.accuracy["dense"].top1 == 75.0
    assert found.accuracy["onnx"].top1 == 25.0
    assert found.accuracy["dense"].n == found.accuracy["onnx"].n == 4
    assert found.difference["onnx"].top1 == -50.0


def test_top5_is_among_the_five_highest() -> None:
    logits = np.tile(np.arange(10, 0, -1, dtype=np.float32), (3, 1))

    found = report([0, 4, 5], Table(logits=logits), Table(logits=logits))

    assert found.accuracy["dense"].top1 == pytest.approx(100 / 3)
    assert found.accuracy["dense"].top5 == pytest.approx(200 / 3)


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_engine_is_fed_as_it_wants(as_bytes: bool, channels_last: bool) -> None:
    seen: list[Array] = []
    table = one_hot([0, 1, 2])

    def engine(images: Array) -> dict[str, Array]:
        seen.append(images)
        return table(images)

    found = measure(
        numbered([0, 1, 2]),
        PREPROCESS,
        cast(fx.GraphModule, table.dense),
        {"onnx": engine},
        as_bytes=as_bytes,
        channels_last=channels_last,
    )

    assert found.accuracy["onnx"].top1 == 100.0
    assert seen[0].shape == ((3, 4, 4, 3) if channels_last else (3, 3, 4, 4))
    assert seen[0].dtype == (np.uint8 if as_bytes else np.float32)


def test_many_images_are_all_measured_in_order() -> None:
    labels = [number % 10 for number in range(150)]

    found = report(labels, one_hot(labels), one_hot([*labels[:100], *[9] * 50]))

    assert found.accuracy["dense"].top1 == 100.0
    assert found.accuracy["onnx"].n == 150
    assert found.accuracy["onnx"].top1 == pytest.approx(100 * 105 / 150)


def test_interval_is_that_of_the_mean_paired_difference() -> None:
    labels = [0] * 200
    dense = one_hot([0] * 180 + [1] * 20)
    engine = one_hot([0] * 150 + [1] * 30 + [0] * 10 + [1] * 10)  # 30 lost, 10 gained

    difference = report(labels, dense, engine).difference["onnx"]

    spread = 100 * np.sqrt((40 / 200 - 0.1**2) / 200)
    assert difference.top1 == pytest.approx(-10.0)
    assert difference.interval[0] == pytest.approx(-10 - 1.96 * spread, abs=1.0)
    assert difference.interval[1] == pytest.approx(-10 + 1.96 * spread, abs=1.0)


def test_equal_answers_have_no_interval_to_speak_of() -> None:
    labels = [0, 1, 2]

    difference = report(labels, one_hot(labels), one_hot(labels)).difference["onnx"]

    assert difference.top1 == 0.0
    assert difference.interval == (0.0, 0.0)


def test_same_images_give_the_same_interval() -> None:
    labels = [0] * 50
    dense, engine = one_hot([0] * 50), one_hot([0] * 40 + [1] * 10)

    assert report(labels, dense, engine) == report(labels, dense, engine)


def test_one_image_is_enough() -> None:
    assert report([3], one_hot([3]), one_hot([4])).difference["onnx"].top1 == -100.0


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"at most 10 classes.*got 13"):
        report([0, 12], one_hot([0, 1]), one_hot([0, 1]))


def test_folder_numbers_its_classes_by_name(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name / "inner").mkdir(parents=True)
        Image.new("L", (5, 5), 100).save(tmp_path / name / "inner" / "1.PNG")
    (tmp_path / "b" / "2.txt").write_text("no image", encoding="utf-8")
    (tmp_path / "loose.png").write_bytes(b"not in a class")

    found = image_folder(tmp_path)

    assert list(found.labels) == [0, 1, 2]
    assert found.open(0).mode == "RGB"


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_unreadable_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.png").write_bytes(content)

    with pytest.raises(UsageError, match=r"broken\.png"):
        image_folder(tmp_path).open(0)


@pytest.mark.parametrize("name", ["missing", "file", "empty"])
def test_folder_without_classes_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "loose.png").touch()

    with pytest.raises(UsageError, match="sub-folder"):
        image_folder(tmp_path / name)
