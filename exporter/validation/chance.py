"""Whether a model's answers have anything to do with the labels: a model that is right, judged by labels that are not.

In: answers and labels as class indices. Out: a sentence of doubt, or None. Two tests, on 50 images or more:

1. *No better than chance.* By chance answers and labels agree on `p = sum over classes of (share among the answers *
   share among the labels)`, as in Cohen (1960), A coefficient of agreement for nominal scales; with a single label, or
   where it is less, on one image in as many as there are classes. The number of hits is tested against Binomial(n, p),
   exactly and one-sided: doubted where p-value >= 0.01.
2. *Better if numbered otherwise.* Labels are given the classes that one half of the images agrees with most, one to one
   (linear assignment), and judged on the other half, both ways round. Doubted where that is right on 20 points more of
   the images, with an exact McNemar p-value below 0.001. It finds labels that are permuted in part.
"""

import numpy as np
import numpy.typing as npt

from exporter.targets import Array
from exporter.validation.accuracy import mcnemar

LEAST_IMAGES = 50
CHANCE_P_VALUE = 0.01
OTHERWISE_POINTS = 20.0
OTHERWISE_P_VALUE = 0.001

_LARGEST_TABLE = 1 << 22  # labels times answers: about a second of assignment


def best_answers(logits_BC: Array) -> npt.NDArray[np.int64]:
    """The class of the largest logit, (B,); the lower of equal ones, and -1 for a row without a finite maximum."""
    answers: npt.NDArray[np.int64] = np.where(
        np.isfinite(logits_BC.max(axis=1)), logits_BC.argmax(axis=1), -1
    ).astype(np.int64)
    return answers


def chance_level(answers_n: Array, labels_n: Array, classes: int) -> float:
    """On what share of the images answers and labels agree by chance."""
    if len(np.unique(labels_n)) < 2:
        return 1 / classes
    counts = [
        np.bincount(each[each >= 0], minlength=classes) / len(labels_n) for each in (answers_n, labels_n)
    ]
    return max(1 / classes, float(counts[0] @ counts[1]))


def label_doubt(answers_n: Array, labels_n: Array, classes: int) -> str | None:
    """Why the labels are probably numbered otherwise than the model's classes, or None.

    Args:
        answers_n: class index per image, (n,).
        labels_n: class index per image, (n,).
        classes: of the model.
    """
    from scipy.stats import binomtest

    n = len(labels_n)
    if n < LEAST_IMAGES:
        return None
    hits_n = answers_n == labels_n
    chance = chance_level(answers_n, labels_n, classes)
    hits = int(hits_n.sum())
    by_chance = float(binomtest(hits, n, chance, alternative="greater").pvalue) >= CHANCE_P_VALUE
    otherwise = _otherwise(answers_n, labels_n, hits_n)
    if not by_chance and otherwise is None:
        return None
    told = f"the dense model is right on {100 * hits / n:.2f} % of {n} images"
    if by_chance:
        told += f", no better than by chance ({100 * chance:.2f} %)"
    if otherwise is not None:
        told += f", and on {otherwise:.2f} % if its classes are numbered otherwise"
    return (
        f"{told}: the labels are probably numbered otherwise than the model's classes; "
        f"{_example(answers_n, labels_n)}check the mapping, and say the order of the classes with --classes FILE"
    )


def _otherwise(answers_n: Array, labels_n: Array, hits_n: Array) -> float | None:
    """Percent right if labels are numbered as the other half of the images says, where that is clearly better."""
    labels, rows_n = np.unique(labels_n, return_inverse=True)
    answers, columns_n = np.unique(answers_n, return_inverse=True)
    if len(labels) * len(answers) > _LARGEST_TABLE:
        return None
    half_n = np.random.default_rng(0).permutation(len(labels_n)) % 2 == 0
    found_n = np.zeros(len(labels_n), dtype=bool)
    for fitted_n in (half_n, ~half_n):
        table = np.zeros((len(labels), len(answers)), dtype=np.int64)
        np.add.at(table, (rows_n[fitted_n], columns_n[fitted_n]), 1)
        found_n |= ~fitted_n & (_assigned(table)[rows_n] == columns_n)
    gained, lost = int((found_n & ~hits_n).sum()), int((hits_n & ~found_n).sum())
    points = 100 * (gained - lost) / len(labels_n)
    if points < OTHERWISE_POINTS or mcnemar(lost, gained) >= OTHERWISE_P_VALUE:
        return None
    return 100 * float(found_n.mean())


def _assigned(table: Array) -> Array:
    """For each row the column that it is given; -1 where there are more rows than columns."""
    from scipy.optimize import linear_sum_assignment

    columns = np.full(len(table), -1)
    rows, chosen = linear_sum_assignment(table, maximize=True)
    columns[rows] = chosen
    return columns


def _example(answers_n: Array, labels_n: Array) -> str:
    """The label of most images whose commonest answer is another class."""
    for label in sorted(set(labels_n.tolist()), key=lambda each: (-int((labels_n == each).sum()), each)):
        given = answers_n[(labels_n == label) & (answers_n >= 0)]
        commonest = int(np.bincount(given).argmax()) if len(given) else label
        if commonest != label:
            return f"images labelled as class {label} are mostly answered as class {commonest}; "
    return ""
