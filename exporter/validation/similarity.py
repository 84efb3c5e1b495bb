"""Similarity of pairs of texts: do cosines of embeddings rank the pairs as people did?

In: embeddings of both sides of every pair, by contender, and a score per pair. Out: Spearman's rank correlation of the
cosines with the scores, and paired differences to the baseline, whose interval comes from resampling pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from exporter.records import Similarity, SimilarityDifference
from exporter.targets import Array
from exporter.validation.accuracy import RESAMPLED_AT_ONCE, RESAMPLES
from exporter.validation.fidelity import unit_rows


@dataclass(frozen=True, kw_only=True)
class SimilarityReport:
    """Correlations by contender, and differences by contender other than the baseline."""

    similarity: Mapping[str, Similarity]
    difference: Mapping[str, SimilarityDifference]


def pair_cosines(first_NC: Array, second_NC: Array) -> Array:
    """The cosine of every pair of rows, float64 (N,); -1 where one of the two is not finite."""
    cosines_N: Array = np.nan_to_num((unit_rows(first_NC) * unit_rows(second_NC)).sum(axis=1), nan=-1.0)
    return cosines_N


def spearman(one_BN: Array, other_BN: Array) -> Array:
    """Correlation of the ranks along the last axis, from -1 to 1; equal values share their mean rank (Spearman, 1904).

    0 where all values of a side are equal, which then says nothing.
    """
    from scipy.stats import rankdata

    one_BN, other_BN = (rankdata(each, axis=-1) - (each.shape[-1] + 1) / 2 for each in (one_BN, other_BN))
    product_B = (one_BN * other_BN).sum(axis=-1)
    norm_B = np.sqrt((one_BN**2).sum(axis=-1) * (other_BN**2).sum(axis=-1))
    correlation_B: Array = np.where(norm_B > 0, product_B / np.where(norm_B > 0, norm_B, 1), 0.0)
    return correlation_B


def report_similarity(
    cosines: Mapping[str, Array], scores_N: Array, *, baseline: str = "dense"
) -> SimilarityReport:
    """Correlation of every contender's cosines with the scores, and its paired difference to the baseline.

    Args:
        cosines: by contender, (N,), over the same pairs in the same order.
        scores_N: of people; a larger one is more alike.
        baseline: one of the contenders.
    """
    found = {name: float(spearman(each, scores_N)) for name, each in cosines.items()}
    return SimilarityReport(
        similarity={name: Similarity(spearman=each, n=len(scores_N)) for name, each in found.items()},
        difference={
            name: SimilarityDifference(
                spearman=found[name] - found[baseline], interval=_interval(each, cosines[baseline], scores_N)
            )
            for name, each in cosines.items()
            if name != baseline
        },
    )


def _interval(cosines_N: Array, baseline_N: Array, scores_N: Array) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the difference of two correlations over the pairs, always the same."""
    if np.array_equal(cosines_N, baseline_N):
        return 0.0, 0.0
    count, rng = len(scores_N), np.random.default_rng(0)
    at_once, differences = max(1, RESAMPLED_AT_ONCE // count), []
    for start in range(0, RESAMPLES, at_once):
        drawn_BN = rng.integers(count, size=(min(at_once, RESAMPLES - start), count))
        own_B, baseline_B = (spearman(each[drawn_BN], scores_N[drawn_BN]) for each in (cosines_N, baseline_N))
        differences.append(own_B - baseline_B)
    low, high = np.quantile(np.concatenate(differences), (0.025, 0.975))
    return float(low), float(high)
