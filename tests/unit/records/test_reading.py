"""Records come back as they were written; files of another form are refused by file and key."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import BundleError
from exporter.records import BenchRecord, ValidationRecord, canonical_json, read_file, record_from
from tests.support.report_bundle import BENCH, VALIDATION

KINDS: dict[str, Any] = {"validation.json": ValidationRecord, "bench.json": BenchRecord}
TREES = {"validation.json": VALIDATION, "bench.json": BENCH}


def read(folder: Path, file: str, tree: object) -> Any:
    (folder / file).write_text(json.dumps(tree), encoding="utf-8")
    return read_file(KINDS[file], folder / file, "make the file again")


def changed(file: str, path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The sound content of a file, but for one value."""
    tree: Any = deepcopy(TREES[file])
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return dict(tree)


@pytest.mark.parametrize("file", list(KINDS))
def test_record_comes_back_as_it_was_written(tmp_path: Path, file: str) -> None:
    record = read(tmp_path, file, TREES[file])

    assert read(tmp_path, file, json.loads(canonical_json(record))) == record


def test_keys_that_a_file_lacks_have_their_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "bench.json", {}) == BenchRecord()
    assert read(tmp_path, "validation.json", {"data": {"name": "x"}}).retrieval == {}


def test_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="bench.json: cannot be read: No such file"):
        read_file(BenchRecord, tmp_path / "bench.json", "make the file again")


@pytest.mark.parametrize(
    ("file", "path", "value", "message"),
    [
        ("validation.json", ("data",), None, "validation.json: data: expected an object, got null"),
        ("validation.json", ("data", "name"), 3, "data.name: expected a text, got 3"),
        (
            "validation.json",
            ("accuracy", "onnx", "top1"),
            "98",
            'accuracy.onnx.top1: expected a number, got "98"',
        ),
        (
            "validation.json",
            ("accuracy", "onnx", "n"),
            1.5,
            "accuracy.onnx.n: expected a whole number, got 1.5",
        ),
        ("validation.json", ("accuracy",), [1], r"accuracy: expected an object, got \[1\]"),
        (
            "validation.json",
            ("difference", "onnx", "interval"),
            [1],
            "interval: expected at least 2 entries",
        ),
        (
            "validation.json",
            ("difference", "onnx", "interval"),
            [2, 1],
            "interval: expected the lower bound first",
        ),
        (
            "validation.json",
            ("difference", "onnx", "interval"),
            [0, "x"],
            "interval\\[1\\]: expected a number",
        ),
        ("validation.json", ("blocks", 1), 7, r"blocks\[1\]: expected an object, got 7"),
        ("validation.json", ("blocks",), {}, "blocks: expected a list"),
        ("validation.json", ("labels", 1, "index"), "1", r"labels\[1\].index: expected a whole number"),
        ("validation.json", ("labels", 0, "class"), 3, r"labels\[0\].class: expected a text, got 3"),
        ("validation.json", ("warnings",), [1], r"warnings\[0\]: expected a text, got 1"),
        (
            "validation.json",
            ("retrieval", "dense", "text_to_image", "r5"),
            None,
            "text_to_image.r5: expected a number",
        ),
        (
            "bench.json",
            ("contenders", 2, "median_ms"),
            None,
            r"bench.json: contenders\[2\].median_ms: expected a number",
        ),
        (
            "bench.json",
            ("contenders", 2, "reduced"),
            1,
            r"contenders\[2\].reduced: expected true or false, got 1",
        ),
        ("bench.json", ("ratios", 0, "batch"), True, r"ratios\[0\].batch: expected a whole number, got true"),
        ("bench.json", ("warnings",), "one", "warnings: expected a list"),
        (
            "bench.json",
            ("merge_efficiency", "onnx"),
            [],
            r"merge_efficiency.onnx: expected a number, got \[\]",
        ),
        ("bench.json", ("blocks", "onnx", 0, "ms"), "fast", r"blocks.onnx\[0\].ms: expected a number"),
        ("bench.json", ("environment",), "a machine", "environment: expected an object"),
    ],
)
def test_value_of_the_wrong_kind_is_refused_by_file_and_key(
    tmp_path: Path, file: str, path: tuple[str | int, ...], value: object, message: str
) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        read(tmp_path, file, changed(file, path, value))

    assert str(caught.value).endswith("; make the file again")


@pytest.mark.parametrize("tree", [[], 1, None])
def test_json_that_is_no_object_is_refused(tmp_path: Path, tree: object) -> None:
    with pytest.raises(BundleError, match="bench.json: top level: expected an object"):
        read(tmp_path, "bench.json", tree)


def test_unknown_keys_are_left_alone(tmp_path: Path) -> None:
    assert read(tmp_path, "bench.json", {**BENCH, "later": {"x": 1}}) == read(tmp_path, "bench.json", BENCH)


def test_missing_key_is_named() -> None:
    with pytest.raises(BundleError, match='validation.json: data: missing key "name"; mend it'):
        record_from(ValidationRecord, {"data": {}}, "validation.json", "mend it")


def test_text_with_half_a_character_is_read() -> None:
    """Names of files may hold bytes that are no text; JSON writes them as lone surrogates."""
    record = record_from(ValidationRecord, {"data": {"name": "a\udcff"}}, "validation.json", "mend it")

    assert record.data.name == "a\ufffd"


def test_ratio_to_remember_is_that_of_the_reduced_engine(tmp_path: Path) -> None:
    ratio = read(tmp_path, "bench.json", BENCH).main_ratio

    assert (ratio.contender, ratio.baseline) == ("r4 onnx", "eager dense")
