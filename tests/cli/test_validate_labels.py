"""`validate --data` with folders and tables as people have them: the right accuracy, or a refusal."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exporter.models import ModelRequest, shipped_data
from tests.cli.commands import refused, run

COUNT = 60
RIGHT = 95.0  # percent: on its first 60 held-out scans the model is at most three times wrong

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Scans = Callable[[Callable[[int], str]], Path]
"""Writes the scans into a folder per class, whose name is made of the digit."""


@pytest.fixture(scope="session")
def pictures() -> list[tuple[Image.Image, int]]:
    """Scans that ship with the model, and the digit on each."""
    shipped = shipped_data(ModelRequest(model="vit_digits"))
    assert shipped is not None
    return [(Image.fromarray(shipped.images_BHWC[n]), int(shipped.labels[n])) for n in range(COUNT)]


@pytest.fixture
def scans(pictures: list[tuple[Image.Image, int]], tmp_path: Path) -> Scans:
    def write(name_of: Callable[[int], str]) -> Path:
        for number, (picture, digit) in enumerate(pictures):
            path = tmp_path / "data" / name_of(digit) / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        return tmp_path / "data"

    return write


def measured(bundle: Path, *words: str | Path) -> dict[str, Any]:
    outcome = run("validate", bundle, *words, "--no-save", "--json")
    assert outcome.status == 0, outcome.err
    return outcome.document


def class_number(digit: int) -> str:
    return f"class{digit + 1}"


def other_letter(digit: int) -> str:
    return "jabcdefghi"[digit]


@pytest.fixture
def names_file(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("".join(f"{class_number(digit)}\n" for digit in range(10)), encoding="utf-8")
    return path


# Right ----------------------------------------------------------------------------------------------


def test_folders_called_like_classes_give_the_models_accuracy(digits_bundle: Path, scans: Scans) -> None:
    found = measured(digits_bundle, "--data", scans(WORDS.__getitem__))

    assert found["accuracy"]["dense"]["top1"] >= RIGHT
    assert found["labels_matched_by"] == "name"
    expected = [{"label": word, "class": word, "index": digit} for digit, word in enumerate(WORDS)]
    assert sorted(found["labels"], key=lambda row: int(row["index"])) == expected
    assert "warnings" not in found


def test_a_part_of_the_classes_beside_what_is_stray_gives_the_models_accuracy(
    digits_bundle: Path, scans: Scans
) -> None:
    folder = scans(WORDS.__getitem__)
    for digit in (0, 1, 2, 4, 5, 6, 8, 9):
        shutil.rmtree(folder / WORDS[digit])
    shutil.copytree(folder / "three", folder / "__MACOSX")
    (folder / "unused").mkdir()

    found = measured(digits_bundle, "--data", folder)

    assert found["accuracy"]["dense"]["top1"] >= RIGHT - 10  # one of a dozen may be wrong
    assert [(row["label"], row["index"]) for row in found["labels"]] == [("seven", 7), ("three", 3)]
    assert found["notes"] == [
        "skipped, as no images and no classes: __MACOSX",
        "skipped, as without images: unused",
    ]


# Refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name_of", "words", "expected"),
    [
        pytest.param(
            class_number,
            (),
            "(class1, class10, class2, ...) is the name of a class, of which the model has 10",
            id="class1..class10",
        ),
        pytest.param(
            lambda digit: ("train", "val")[digit % 2],
            ("--labels-in-order",),
            "data/val",
            id="train/val in order",
        ),
    ],
)
def test_folders_that_no_class_is_called_like_are_refused(
    digits_bundle: Path, scans: Scans, name_of: Callable[[int], str], words: tuple[str, ...], expected: str
) -> None:
    assert expected in refused(2, "validate", digits_bundle, "--data", scans(name_of), *words)


def test_a_sweep_matches_labels_by_the_same_rules(scans: Scans, names_file: Path, workplace: Path) -> None:
    words = ("sweep", "vit_digits", "--r", "0", "--data", scans(class_number))

    assert "is the name of a class" in refused(2, *words)
    assert "as numbers; say the order" in refused(2, *words, "--labels-in-order")
    names_file.write_text("zero\none\n", encoding="utf-8")
    assert "expected 10 lines" in refused(2, *words, "--classes", names_file)


# Doubted, and shown ---------------------------------------------------------------------------------


def test_labels_in_another_order_than_the_models_are_doubted_loudly(
    digits_bundle: Path, scans: Scans, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(digits_bundle, copy)

    outcome = run("validate", copy, "--data", scans(other_letter), "--labels-in-order")

    assert outcome.status == 0, outcome.err
    told = " ".join(outcome.out.split())
    assert (
        "labels 10, matched by the order of their names: a = 0 (zero), b = 1 (one), c = 2 (two) and 7 more"
        in told
    )
    assert "no better than by chance" in told
    assert "the labels are probably numbered otherwise" in told
    found = json.loads((copy / "validation.json").read_text(encoding="utf-8"))
    assert found["accuracy"]["dense"]["top1"] < 10
    assert "the labels are probably numbered otherwise" in found["warnings"][0]
    assert run("report", copy, "--quiet").status == 0
    text = (copy / "report.md").read_text(encoding="utf-8")
    assert "Warning: the dense model is right on" in text
    assert "| a | zero | 0 |" in text
    assert "matched by the order of their names" in text
