"""Inputs by name: what is accepted, in which order it is called, and what is refused."""

from typing import Any

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.signature import Signature, TensorSpec

IMAGES = TensorSpec(name="images", dtype="float32", shape=("batch", 3))
IDS = TensorSpec(name="ids", dtype="int64", shape=("batch", 4))
MASK = TensorSpec(name="mask", dtype="int64", shape=("batch", 4))
ONE = Signature(inputs=(IMAGES,), outputs=())
TWO = Signature(inputs=(IDS, MASK), outputs=(TensorSpec(name="embedding", dtype="float32", shape=(1, 2)),))


def ids(rows: int = 2, width: int = 4, dtype: Any = np.int64) -> Any:
    return np.zeros((rows, width), dtype)


def test_one_input_may_be_given_without_its_name() -> None:
    images = np.zeros((5, 3), np.float32)

    assert ONE.named(images)["images"] is images
    assert ONE.named({"images": images})["images"] is images


def test_inputs_come_in_the_order_of_the_call() -> None:
    assert list(TWO.named({"mask": ids(), "ids": ids()})) == ["ids", "mask"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(ids(), "expected ids, mask by name, got one array", id="no-names"),
        pytest.param({"ids": ids()}, "expected ids, mask, got ids", id="missing"),
        pytest.param({"ids": ids(), "mask": ids(), "x": ids()}, "got ids, mask, x", id="unknown"),
        pytest.param({"ids": ids(), "mask": ids(3)}, "as many rows in each, got ids 2, mask 3", id="rows"),
        pytest.param({"ids": ids(width=5), "mask": ids()}, "ids: expected at least one row of 4", id="shape"),
        pytest.param({"ids": ids(), "mask": ids(dtype=np.float32)}, "mask: expected int64", id="dtype"),
        pytest.param({"ids": ids(0), "mask": ids(0)}, "ids: expected at least one row", id="empty"),
    ],
)
def test_inputs_that_the_engine_would_misread_are_refused(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TWO.named(given)


def test_matches_come_after_the_outputs() -> None:
    assert TWO.with_matches(2).output_names == ["embedding", "match_0", "match_1"]


def test_inputs_are_picked_out_of_a_sample() -> None:
    sample = {"ids": ids(), "mask": ids(), "embedding": ids()}

    assert list(TWO.inputs_of(sample)) == ["ids", "mask"]
