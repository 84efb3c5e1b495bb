"""Rank correlations of cosines with scores, against scipy's own and against numbers that follow from the definition."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from exporter.validation import pair_cosines, report_similarity
from exporter.validation.similarity import spearman


def test_correlation_is_that_of_the_ranks_with_ties() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 6, (2, 4, 30))

    expected = [spearmanr(*rows).statistic for rows in zip(one, other, strict=True)]

    np.testing.assert_allclose(spearman(one, other), expected, atol=1e-12)


def test_equal_values_on_a_side_correlate_with_nothing() -> None:
    assert spearman(np.ones(3), np.arange(3)) == 0


def test_cosines_of_pairs_ignore_length_and_are_least_where_a_row_is_not_finite() -> None:
    first, second = np.array([[2.0, 0], [1, 1], [1, 0]]), np.array([[3.0, 0], [1, -1], [np.nan, 0]])

    np.testing.assert_allclose(pair_cosines(first, second), [1, 0, -1], atol=1e-12)


def test_report_gives_the_paired_difference_to_the_dense_model() -> None:
    scores = np.arange(5.0)

    found = report_similarity({"dense": scores**3, "onnx": -scores, "same": scores**3}, scores)

    assert {name: each.spearman for name, each in found.similarity.items()} == pytest.approx(
        {"dense": 1, "onnx": -1, "same": 1}
    )
    assert found.difference["onnx"].spearman == pytest.approx(-2)
    assert found.difference["same"].interval == (0, 0)


def test_interval_is_as_wide_as_the_spread_of_the_difference_over_samples() -> None:
    """The interval's width against the spread of the same difference over 400 fresh samples; 25 % are tolerated."""
    generator = np.random.default_rng(1)

    def sample() -> tuple[dict[str, np.ndarray], np.ndarray]:
        scores = generator.standard_normal(200)
        dense = scores + generator.standard_normal(200)
        return {"dense": dense, "onnx": dense + 0.7 * generator.standard_normal(200)}, scores

    differences = []
    for _ in range(400):
        cosines, scores = sample()
        differences.append(spearman(cosines["onnx"], scores) - spearman(cosines["dense"], scores))
    low, high = report_similarity(*sample()).difference["onnx"].interval

    assert high - low == pytest.approx(2 * 1.96 * np.std(differences), rel=0.25)
