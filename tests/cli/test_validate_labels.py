"""`validate --data` with folders and tables as people have them: the right accuracy, or a refusal."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from exporter.models import ModelRequest, Preprocess, crop_image, normalize, shipped_data
from tests.cli.commands import Build, refused, run
from tests.support.families import randomise

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


def letter(digit: int) -> str:
    return "abcdefghij"[digit]


def other_letter(digit: int) -> str:
    return "jabcdefghi"[digit]


@pytest.fixture
def names_file(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("".join(f"{class_number(digit)}\n" for digit in range(10)), encoding="utf-8")
    return path


# Right ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name_of", "rule"),
    [
        pytest.param(WORDS.__getitem__, "name", id="zero..nine"),
        pytest.param(str, "name", id="0..9"),
        pytest.param(lambda digit: f"{digit:03}", "index", id="000..009"),
    ],
)
def test_folders_called_like_classes_give_the_models_accuracy(
    digits_bundle: Path, scans: Scans, name_of: Callable[[int], str], rule: str
) -> None:
    found = measured(digits_bundle, "--data", scans(name_of))

    assert found["accuracy"]["dense"]["top1"] >= RIGHT
    assert found["labels_matched_by"] == rule
    expected = [{"label": name_of(digit), "class": WORDS[digit], "index": digit} for digit in range(10)]
    assert sorted(found["labels"], key=lambda row: int(row["index"])) == expected
    assert "warnings" not in found


def test_class_names_in_a_file_give_the_models_accuracy(
    digits_bundle: Path, scans: Scans, names_file: Path
) -> None:
    found = measured(digits_bundle, "--data", scans(class_number), "--classes", names_file)

    assert found["accuracy"]["dense"]["top1"] >= RIGHT
    assert (found["labels_matched_by"], found["task"]) == ("classes", "classification")


def test_class_names_in_a_table_give_the_models_accuracy(
    digits_bundle: Path, scans: Scans, pictures: list[tuple[Image.Image, int]]
) -> None:
    folder = scans(lambda digit: "all")
    rows = [f"all/{number:02}.png,{WORDS[digit].title()}" for number, (_, digit) in enumerate(pictures)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows, "./" + rows[0]]), encoding="utf-8")

    found = measured(digits_bundle, "--data", folder / "labels.csv")

    assert found["accuracy"]["dense"]["top1"] >= RIGHT
    assert found["accuracy"]["dense"]["n"] == COUNT
    assert found["notes"] == [f"1 row of images listed before left out, the first in line {COUNT + 2}"]


def test_folders_in_the_models_order_give_its_accuracy_if_the_user_says_so(
    digits_bundle: Path, scans: Scans
) -> None:
    found = measured(digits_bundle, "--data", scans(letter), "--labels-in-order")

    assert found["accuracy"]["dense"]["top1"] >= RIGHT
    assert (found["labels_matched_by"], found["labels"][3]["class"]) == ("order", "three")


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
            class_number,
            ("--labels-in-order",),
            "class1, class10 as text, class1, class2 as numbers",
            id="in order",
        ),
        pytest.param(
            lambda digit: WORDS[digit] + ("?" if digit == 3 else ""), (), 'Did you mean "three"?', id="one"
        ),
        pytest.param(
            lambda digit: ("train", "test")[digit % 2], (), "not classes; give one of them", id="train/test"
        ),
        pytest.param(
            lambda digit: ("train", "val")[digit % 2],
            ("--labels-in-order",),
            "data/val",
            id="train/val in order",
        ),
        pytest.param(
            lambda digit: "ab"[digit % 2], ("--labels-in-order",), "expected 10 folders", id="two in order"
        ),
    ],
)
def test_folders_that_nobody_knows_are_refused(
    digits_bundle: Path, scans: Scans, name_of: Callable[[int], str], words: tuple[str, ...], expected: str
) -> None:
    assert expected in refused(2, "validate", digits_bundle, "--data", scans(name_of), *words)


def test_too_few_class_names_are_refused(digits_bundle: Path, scans: Scans, names_file: Path) -> None:
    names_file.write_text("zero\none\n", encoding="utf-8")

    complaint = refused(2, "validate", digits_bundle, "--data", scans(str), "--classes", names_file)

    assert "classes: expected 10 lines in " in complaint
    assert "one for each class of the model in its order, got 2" in complaint


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


# A checkpoint whose classes are not in the order of their names ---------------------------------------

PETS = {0: "tabby cat", 1: "goldfish", 2: "Dog"}
PLAIN = Preprocess(
    image_size=(24, 24), interpolation="bilinear", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.5,) * 3
)


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny checkpoint, and images in folders that are called like what the checkpoint itself says about them."""
    folder = tmp_path_factory.mktemp("pets")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.ViTConfig(
        **size,
        image_size=24,
        patch_size=4,
        id2label=PETS,
        label2id={name: each for each, name in PETS.items()},
    )
    model: Any = transformers.ViTForImageClassification(config)
    randomise(model, 5)
    model.eval()
    images = [
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (6, 6, 3), np.uint8)).resize((24, 24))
        for n in range(COUNT)
    ]
    inputs = torch.from_numpy(np.stack([normalize(crop_image(each, PLAIN), PLAIN) for each in images]))
    with torch.no_grad():
        logits = model(inputs).logits
        model.classifier.bias -= logits.mean(0)
        answers = model(inputs).logits.argmax(1).tolist()
    model.save_pretrained(folder / "model")
    processor = transformers.ViTImageProcessor(size={"height": 24, "width": 24}, resample=2)
    processor.save_pretrained(folder / "model")
    for number, (image, answer) in enumerate(zip(images, answers, strict=True)):
        place = folder / "data" / PETS[answer].replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number:02}.png")
    (folder / "data" / "__MACOSX").mkdir()
    images[0].save(folder / "data" / "__MACOSX" / "a.png")
    assert sorted(path.name for path in (folder / "data").iterdir()) == [
        "Dog",
        "__MACOSX",
        "goldfish",
        "tabby_cat",
    ]
    return folder / "model", folder / "data"


def test_a_checkpoints_own_class_names_are_what_folders_are_matched_with(
    build: Build, pets: tuple[Path, Path]
) -> None:
    model, data = pets

    found = measured(build(f"hf:{model}", "--r", "2"), "--data", data)

    assert found["accuracy"]["dense"] == {"top1": 100.0, "top5": 100.0, "n": COUNT}
    assert found["labels"] == [
        {"label": "Dog", "class": "Dog", "index": 2},
        {"label": "goldfish", "class": "goldfish", "index": 1},
        {"label": "tabby_cat", "class": "tabby cat", "index": 0},
    ]
    assert found["notes"] == ["skipped, as no images and no classes: __MACOSX"]


def test_a_part_of_a_checkpoints_classes_beside_what_is_stray_gives_its_accuracy(
    build: Build, pets: tuple[Path, Path], tmp_path: Path
) -> None:
    model, data = pets
    for name in ("Dog", "__MACOSX"):
        shutil.copytree(data / name, tmp_path / "data" / name)

    found = measured(build(f"hf:{model}", "--r", "2"), "--data", tmp_path / "data")

    assert found["accuracy"]["dense"]["top1"] == 100.0
    assert [row["index"] for row in found["labels"]] == [2]
