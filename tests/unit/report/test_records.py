"""Files of the wrong shape are refused, with the file's name and the key."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import BundleError
from exporter.report.benchmark_record import flat, read_benchmark
from exporter.report.json_view import JsonView
from exporter.report.validation_record import read_validation
from tests.support.report_bundle import BENCH, VALIDATION

READERS: dict[str, Callable[[Path], object]] = {
    "validation.json": read_validation,
    "bench.json": read_benchmark,
}
TREES = {"validation.json": VALIDATION, "bench.json": BENCH}


def changed(file: str, path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The sound content of a file, but for one value."""
    tree: Any = deepcopy(TREES[file])
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return dict(tree)


@pytest.mark.parametrize("file", list(READERS))
def test_sound_file_is_read_and_a_missing_one_is_none(tmp_path: Path, file: str) -> None:
    assert READERS[file](tmp_path) is None

    (tmp_path / file).write_text(json.dumps(TREES[file]), encoding="utf-8")

    assert READERS[file](tmp_path) is not None


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
            "interval: expected a list of a lower and",
        ),
        (
            "validation.json",
            ("difference", "onnx", "interval"),
            [2, 1],
            "interval: expected the lower bound first",
        ),
        ("validation.json", ("difference", "onnx", "interval"), [0, "x"], "interval.high: expected a number"),
        ("validation.json", ("blocks", 1), 7, r"blocks\[1\]: expected an object, got 7"),
        ("validation.json", ("blocks",), {}, "blocks: expected a list"),
        ("validation.json", ("labels", 1, "index"), "1", r"labels\[1\].index: expected a whole number"),
        ("validation.json", ("labels", 0, "class"), 3, r"labels\[0\].class: expected a text, got 3"),
        ("validation.json", ("warnings",), [1], "warnings: expected a list of texts"),
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
        ("bench.json", ("warnings",), "one", "warnings: expected a list of texts"),
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
    (tmp_path / file).write_text(json.dumps(changed(file, path, value)), encoding="utf-8")

    with pytest.raises(BundleError, match=message):
        READERS[file](tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_number_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    tree = changed("bench.json", ("ratios", 0, "value"), value)
    (tmp_path / "bench.json").write_text(json.dumps(tree), encoding="utf-8")

    with pytest.raises(BundleError, match=r"ratios\[0\].value: expected a number"):
        read_benchmark(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "1", "[" * 100_000])
def test_text_that_is_not_a_json_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "bench.json").write_text(content, encoding="utf-8")

    with pytest.raises(BundleError, match="bench.json: expected"):
        read_benchmark(tmp_path)


def test_unknown_keys_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps({**BENCH, "later": {"x": 1}}), encoding="utf-8")

    assert read_benchmark(tmp_path) == read_benchmark_of(tmp_path / "plain", BENCH)


def read_benchmark_of(folder: Path, tree: dict[str, Any]) -> object:
    folder.mkdir()
    (folder / "bench.json").write_text(json.dumps(tree), encoding="utf-8")
    return read_benchmark(folder)


def test_ratio_to_remember_is_that_of_the_reduced_engine(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(BENCH), encoding="utf-8")

    record = read_benchmark(tmp_path)

    assert record is not None
    assert record.main_ratio is not None
    assert record.main_ratio.name == "r4 onnx / eager dense"


def test_environment_is_flattened_to_names_and_texts() -> None:
    rows = flat({"cpu": "x", "cores": {"used": [0, 1], "n": 2}, "governor": None, "ok": True, "none": []})

    assert rows == {
        "cpu": "x",
        "cores used": "0, 1",
        "cores n": "2",
        "governor": "none",
        "ok": "true",
        "none": "none",
    }


def test_absent_lists_and_objects_are_empty() -> None:
    view = JsonView(file="x.json", path="", tree={"null": None})

    assert (view.views("null"), view.views("absent"), view.texts("absent")) == ((), (), ())
    assert (view.numbers("absent"), view.named_views("null")) == ({}, {})
    assert view.number_or_none("absent") is None
    assert view.integer_or_none("null") is None
    assert view.interval_or_none("absent") is None
