"""The comparer: what passes, and every kind of wrong output that must not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from exporter.errors import ParityError
from exporter.validation import TOLERANCES, Comparison, ParityResult, Tolerances, compare, require

Array = npt.NDArray[Any]

STRICT = Tolerances(max_abs_error=1e-4, mean_abs_error=1e-5, cosine=0.99999, tie=1e-5)


def expected() -> Array:
    return np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)


def result(comparison: Comparison, tolerances: Tolerances = STRICT, **more: Any) -> ParityResult:
    return ParityResult(comparisons={"photo/logits": comparison}, tolerances=tolerances, **more)


def with_number(value: float) -> Callable[[Array], Array]:
    """Return what replaces the last number of an output."""

    def change(array: Array) -> Array:
        array[2, 7] = value
        return array

    return change


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda array: array[[1, 0, 2]], id="rows"),
        pytest.param(with_number(float(expected()[2, 7]) + 3e-3), id="number"),
        pytest.param(lambda array: array + np.float32(5e-5), id="shift"),
        pytest.param(with_number(np.nan), id="nan"),
        pytest.param(with_number(np.inf), id="inf"),
        pytest.param(np.zeros_like, id="zeros"),
        pytest.param(np.negative, id="sign"),
        pytest.param(lambda array: 1.1 * array, id="scale"),
        pytest.param(lambda array: array[:2], id="fewer"),
        pytest.param(lambda array: array[:, :4], id="narrow"),
        pytest.param(lambda array: array.T, id="transposed"),
        pytest.param(lambda array: array[None], id="rank"),
    ],
)
def test_wrong_outputs_do_not_pass(wrong: Callable[[Array], Array]) -> None:
    found = result(compare(wrong(expected()), expected()))

    assert not found.passed
    with pytest.raises(ParityError, match="photo/logits"):
        require(found, "onnx", "fp32")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_reference_that_is_not_finite_does_not_pass(value: float) -> None:
    reference = expected()
    reference[1, 1] = value

    assert not result(compare(expected(), reference)).passed
    assert not result(compare(reference.copy(), reference)).passed


def test_equal_outputs_have_no_error() -> None:
    found = compare(expected(), expected())

    assert (found.max_abs_error, found.mean_abs_error) == (0.0, 0.0)
    assert found.cosine == pytest.approx(1.0)
    assert result(found).passed
    require(result(found), "onnx", "fp32")


def test_numbers_are_what_their_names_say() -> None:
    found = compare(np.array([[3.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [2.0, 2.0]]))

    assert found.max_abs_error == 2.0
    assert found.mean_abs_error == 0.5
    assert found.magnitude == 3.0
    assert found.cosine == pytest.approx(1 / np.sqrt(2))


def test_rows_of_zeros_agree_only_with_zeros() -> None:
    zeros = np.zeros((1, 4))

    assert compare(zeros, zeros).cosine == 1.0
    assert compare(zeros, np.full((1, 4), 1e-9)).cosine < 1


def test_one_wrong_row_is_not_averaged_away() -> None:
    reference = np.tile(expected(), (100, 1))
    outputs = reference.copy()
    outputs[17] = -outputs[17]

    assert compare(outputs, reference).cosine == pytest.approx(-1.0)


def test_errors_are_relative_to_large_outputs_only() -> None:
    large, small = 1000 * np.ones((1, 4)), 0.001 * np.ones((1, 4))

    assert result(compare(large + 5e-3, large)).passed
    assert not result(compare(small + 5e-3, small)).passed


def test_wrong_matches_do_not_pass_whatever_the_numbers() -> None:
    found = result(compare(expected(), expected()), tie_regret=2e-5)

    assert not found.passed
    with pytest.raises(ParityError, match="regret"):
        require(found, "onnx", "fp32")


def test_the_worst_of_several_outputs_counts() -> None:
    found = ParityResult(
        comparisons={"a": compare(expected(), expected()), "b": compare(expected() + 1, expected())},
        tolerances=STRICT,
    )

    assert found.max_abs_error == pytest.approx(1.0, abs=1e-6)
    assert [phrase.partition(":")[0] for phrase in found.shortfalls] == ["b", "b", "b"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_default_tolerances_refuse_another_model(precision: str) -> None:
    tolerances = {str(name): each for name, each in TOLERANCES.items()}[precision]
    other = np.random.default_rng(1).standard_normal((3, 8))

    assert not result(compare(other, expected()), tolerances).passed
