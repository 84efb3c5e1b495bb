"""Measurements whose numbers are out of range, or of blocks that the model has not, end in one line."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.bundle import Bundle
from exporter.errors import BundleError
from exporter.report import report_bundle
from exporter.sweep import read_record
from exporter.sweep.record import write_record
from tests.support.report_bundle import BENCH, VALIDATION, make_bundle
from tests.support.report_sweep import sweep_record

Forged = Callable[[Any], Any]


def every_number(tree: Any, value: float) -> Any:
    """The same tree with one number everywhere, whole where it was whole; blocks stay."""
    if isinstance(tree, dict):
        return {key: inner if key == "block" else every_number(inner, value) for key, inner in tree.items()}
    if isinstance(tree, list):
        return [every_number(inner, value) for inner in tree]
    if isinstance(tree, bool) or not isinstance(tree, int | float):
        return tree
    return int(value) if isinstance(tree, int) else value


@pytest.mark.parametrize("value", [2.0**63, -(2.0**63), 5e-324, 0.0])
def test_extreme_numbers_are_reported(tmp_path: Path, value: float) -> None:
    files = {name: every_number(tree, value) for name, tree in FILES.items()}
    assert report_bundle(make_bundle(tmp_path / "b", files=files)).html


FILES = {"validation.json": VALIDATION, "bench.json": BENCH}


def with_blocks(file: str, blocks: object) -> dict[str, Any]:
    files = deepcopy(FILES)
    files[file]["blocks"] = blocks
    return files


@pytest.mark.parametrize(
    ("file", "blocks", "message"),
    [
        pytest.param("bench.json", {"onnx": [{"block": 3, "ms": 1}]}, "0 to 2, got 3", id="one too many"),
        pytest.param("bench.json", {"onnx": [{"block": -1, "ms": 1}]}, "0 to 2, got -1", id="negative"),
        pytest.param("bench.json", {"onnx": [{"block": 2**70, "ms": 1}]}, "within 64 bits", id="beyond"),
        pytest.param(
            "bench.json", {"onnx": [{"block": 0, "ms": 10**400}]}, "within 64 bits", id="endless time"
        ),
        pytest.param(
            "validation.json",
            [{"block": 7, "tokens": 1, "relative_error": 0}],
            "0 to 2, got 7",
            id="error of a block too many",
        ),
    ],
)
def test_blocks_that_the_model_has_not_are_refused(
    tmp_path: Path, file: str, blocks: object, message: str
) -> None:
    bundle = make_bundle(tmp_path / "b", files=with_blocks(file, blocks))
    with pytest.raises(BundleError, match=rf"{file}: .*{message}"):
        report_bundle(bundle)


def test_fewer_times_than_blocks_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    files = with_blocks("bench.json", {"onnx": [{"block": 1, "ms": 2.5}]})
    assert "2.50" in report_bundle(make_bundle(tmp_path / "b", files=files)).markdown


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        pytest.param(np.full((3, 1, 17), 17), "numbers of tokens from 0 to 16, got 17 to 17", id="too large"),
        pytest.param(np.full((3, 1, 17), -1), "got -1 to -1", id="negative"),
        pytest.param(np.full((3, 1, 17), 2**64 - 1, np.uint64), "to 18446744073709551615", id="beyond"),
        pytest.param(np.zeros((2, 1, 17), np.int32), "expected integers of shape", id="blocks"),
        pytest.param(np.zeros((3, 1, 16), np.int32), "expected integers of shape", id="tokens"),
        pytest.param(np.zeros((3, 0, 17), np.int32), "expected integers of shape", id="no images"),
        pytest.param(np.zeros((3, 1, 17)), "got float64", id="floats"),
        pytest.param(np.zeros((3, 1, 17), complex), "got complex128", id="complex"),
    ],
)
def test_groups_that_cannot_be_are_refused(tmp_path: Path, groups: Any, message: str) -> None:
    bundle: Bundle = make_bundle(tmp_path / "b", merges=groups)
    with pytest.raises(BundleError, match=r"merges\.npz: .*groups_LBT: .*" + message):
        report_bundle(bundle)


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        pytest.param(
            lambda built: built | {"tokens": [17]}, "token counts, one more than blocks, got 1", id="lengths"
        ),
        pytest.param(
            lambda built: built | {"tokens": []}, "token counts, one more than blocks, got 0", id="empty"
        ),
        pytest.param(lambda built: built | {"gmacs_ratio": 10**400}, "within 64 bits", id="ratio"),
        pytest.param(lambda built: built | {"merged": [2**70]}, "within 64 bits", id="merged"),
    ],
)
def test_sweep_that_cannot_be_is_refused(tmp_path: Path, forged: Forged, message: str) -> None:
    write_record(tmp_path, sweep_record())
    tree = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    tree["points"][0]["built"] = forged(tree["points"][0]["built"])
    (tmp_path / "sweep.json").write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(BundleError, match=message):
        read_record(tmp_path)
