"""The section on accuracy says which class every label was taken for, and shouts where that is in doubt."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporter.errors import BundleError
from exporter.records import ValidationRecord, read_file
from exporter.report.content import Listing, Paragraph, Picture, Section, Table
from exporter.report.quality_sections import accuracy_section, fidelity_section
from tests.support.report_bundle import VALIDATION


def section(folder: Path, **changes: Any) -> Section:
    (folder / "validation.json").write_text(json.dumps({**VALIDATION, **changes}), encoding="utf-8")
    return accuracy_section(read_file(ValidationRecord, folder / "validation.json", ""), "digits")


def label_table(found: Section) -> Table:
    (table,) = (part for part in found.parts if isinstance(part, Table) and part.headings[0] == "label")
    return table


def test_labels_are_shown_with_the_classes_that_they_were_taken_for(tmp_path: Path) -> None:
    table = label_table(section(tmp_path))

    assert (
        table.caption == "Labels and the classes that they were taken for, matched by the model's class names"
    )
    assert table.headings == ("label", "class", "index")
    assert table.rows == (("tench", "tench", "0"), ("n01443537", "goldfish", "1"), ("<b>", "not known", "2"))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param("classes", "matched by the names of --classes", id="--classes"),
        pytest.param("index", "matched by class index", id="index"),
        pytest.param("order", "matched by the order of their names", id="order"),
        pytest.param("moon", "matched by an unknown rule", id="of a newer exporter"),
        pytest.param(None, "matched by an unknown rule", id="none"),
    ],
)
def test_the_rule_is_named(rule: str | None, expected: str, tmp_path: Path) -> None:
    assert label_table(section(tmp_path, labels_matched_by=rule)).caption.endswith(expected)


def test_many_labels_are_cut_and_the_caption_says_so(tmp_path: Path) -> None:
    labels = [{"label": f"n{each}", "class": f"thing {each}", "index": each} for each in range(1000)]

    table = label_table(section(tmp_path, labels=labels))

    assert len(table.rows) == 40
    assert table.caption.endswith(", the first 40 of 1000")


def test_a_doubt_about_the_labels_comes_before_the_accuracy(tmp_path: Path) -> None:
    first, second, *_ = section(tmp_path).parts

    assert first == Paragraph(text="Warning: the labels are probably numbered otherwise.", tone="bad")
    assert isinstance(second, Table)
    assert second.caption.startswith("Accuracy")


def test_what_was_left_out_is_named_also_where_nothing_was_unreadable(tmp_path: Path) -> None:
    data = {**VALIDATION["data"], "unreadable": []}

    parts = section(tmp_path, data=data).parts

    assert parts[-1] == Listing(items=("skipped, as no images and no classes: __MACOSX",))


def test_labels_that_are_not_the_users_are_not_shown(tmp_path: Path) -> None:
    parts = section(tmp_path, labels=[], labels_matched_by=None, notes=[], warnings=[]).parts

    assert [part.headings[0] for part in parts if isinstance(part, Table)] == ["contender", "target"]
    assert not any(isinstance(part, Paragraph) and "Warning" in part.text for part in parts)


def features(folder: Path, grid: list[list[float]]) -> Section:
    patches = {"onnx": {"mean": 0.9, "least": 0.5, "grid": grid}}
    (folder / "validation.json").write_text(json.dumps({**VALIDATION, "patches": patches}), encoding="utf-8")
    return fidelity_section(read_file(ValidationRecord, folder / "validation.json", ""), "digits")


def test_features_of_patches_are_a_table_and_a_map_that_is_dark_where_they_differ(tmp_path: Path) -> None:
    found = features(tmp_path, [[1.0, 0.8, 1.0], [1.0, 0.9, 0.7]])

    (table,) = (part for part in found.parts if isinstance(part, Table) and "each patch" in part.caption)
    (picture,) = (part for part in found.parts if isinstance(part, Picture))
    assert table.rows == (("onnx", "6", "0.9", "0.5"),)
    image = Image.open(io.BytesIO(picture.png)).convert("L").resize((3, 2), Image.Resampling.NEAREST)
    shades = np.asarray(image).astype(int)
    assert shades[0, 0] == shades[1, 0] > shades[1, 1] > shades[0, 1] > shades[1, 2]
    assert "from 0.7 (dark) to 1" in picture.label


def test_rows_of_several_lengths_are_damage(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="rows of one length"):
        features(tmp_path, [[1.0, 0.8], [1.0]])
