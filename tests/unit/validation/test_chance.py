"""Labels that have nothing to do with the answers are doubted; those of a model that is merely weak are not."""

import re
from math import comb

import numpy as np
import pytest

from exporter.targets import Array
from exporter.validation.chance import best_answers, chance_level, label_doubt

RANDOM = np.random.default_rng(0)


def labels_of(*counts: int) -> Array:
    """So many images of each class, as folders give them: one class after the other."""
    return np.repeat(np.arange(len(counts)), counts)


def answered(labels_n: Array, right: float, classes: int, seed: int = 0) -> Array:
    """Answers that are right on a share of the images, and any other class elsewhere."""
    random = np.random.default_rng(seed)
    wrong_n = random.permutation(len(labels_n)) >= right * len(labels_n)
    return (labels_n + wrong_n * random.integers(1, classes, len(labels_n))) % classes


TEN = labels_of(*[10] * 10)
ROTATED = (np.arange(10) + 1) % 10
ONE_FIXED = np.array([8, 1, 4, 9, 5, 2, 0, 7, 6, 3])  # 1 and 7 stay
SWAPPED = np.array([1, 0, 3, 2, 5, 4, 6, 7, 8, 9])
STRINGS = np.array([int(name) - 1 for name in sorted(map(str, range(1, 11)))])  # 1, 10, 2, 3, ...


@pytest.mark.parametrize(
    ("answers_n", "labels_n", "classes", "expected"),
    [
        pytest.param(
            ROTATED[TEN], TEN, 10, "right on 0.00 % .* by chance .* and on 100.00 % if", id="all permuted"
        ),
        pytest.param(
            STRINGS[TEN], TEN, 10, r"right on 10.00 % .*on 100.00 % if", id="class1..class10 as strings"
        ),
        pytest.param(
            ONE_FIXED[TEN], TEN, 10, "right on 20.00 % of 100 images, and on 100.00 % if", id="two stay"
        ),
        pytest.param(
            SWAPPED[TEN],
            TEN,
            10,
            "right on 40.00 % of 100 images, and on 100.00 % .*class 0 are mostly .*class 1",
            id="pairs",
        ),
        pytest.param(
            np.arange(100) % 2,
            labels_of(50, 50),
            2,
            r"right on 50.00 % of 100 images, no better than by chance \(50.00 %\):",
            id="train/test",
        ),
        pytest.param(
            1 - labels_of(50, 50), labels_of(50, 50), 2, "0.00 %.* 100.00 % if", id="cat and dog swapped"
        ),
        pytest.param(
            1 - labels_of(90, 10), labels_of(90, 10), 2, "0.00 %.* 100.00 % if", id="swapped, of unequal size"
        ),
        pytest.param(
            np.zeros(60, int), labels_of(40, 20), 2, r"66.67 % .* chance \(66.67 %\)", id="one answer to all"
        ),
        pytest.param(
            np.full(60, 7), np.zeros(60, int), 1000, "0.00 % .* chance .0.10 %.", id="one label of 1000"
        ),
        pytest.param(np.full(60, -1), labels_of(30, 30), 2, "0.00 % ", id="no answers"),
        pytest.param(
            np.random.default_rng(3).integers(0, 10, 400),
            labels_of(*[40] * 10),
            10,
            "no better than by chance",
            id="noise",
        ),
    ],
)
def test_labels_that_are_not_the_models_are_doubted(
    answers_n: Array, labels_n: Array, classes: int, expected: str
) -> None:
    doubt = label_doubt(answers_n, labels_n, classes)

    assert doubt is not None
    assert doubt.startswith("the dense model is right on ")
    assert "the labels are probably numbered otherwise" in doubt

    assert re.search(expected, doubt), doubt


@pytest.mark.parametrize(
    ("answers_n", "labels_n", "classes"),
    [
        pytest.param(TEN, TEN, 10, id="all right"),
        pytest.param(answered(TEN, 0.3, 10), TEN, 10, id="a weak model of ten classes"),
        pytest.param(
            answered(labels_of(100, 100), 0.62, 2), labels_of(100, 100), 2, id="62 % of two classes"
        ),
        pytest.param(
            answered(labels_of(180, 20), 0.9, 2), labels_of(180, 20), 2, id="90 % where 90 % are of one class"
        ),
        pytest.param(np.zeros(60, int), np.zeros(60, int), 1000, id="one label, all right"),
        pytest.param(
            answered(np.full(60, 5), 0.1, 1000), np.full(60, 5), 1000, id="one label, 10 % of 1000 classes"
        ),
        pytest.param(
            answered(np.arange(1000), 0.2, 1000),
            np.arange(1000),
            1000,
            id="an image per class, which any numbering fits",
        ),
        pytest.param(ROTATED[TEN][:49], TEN[:49], 10, id="too few images to say"),
        pytest.param(np.where(TEN == 3, 5, TEN), TEN, 10, id="one class taken for another"),
    ],
)
def test_labels_of_a_model_that_is_right_more_often_than_by_chance_are_not(
    answers_n: Array, labels_n: Array, classes: int
) -> None:
    assert label_doubt(answers_n, labels_n, classes) is None


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_doubted_and_a_weak_model_is_not(seed: int) -> None:
    labels_n = labels_of(*[12] * 10)
    noise_n = np.random.default_rng(seed).integers(0, 10, 120)

    assert (label_doubt(answered(labels_n, 0.25, 10, seed), labels_n, 10)) is None
    hits = int((noise_n == labels_n).sum())
    tail = sum(comb(120, k) * 0.1**k * 0.9 ** (120 - k) for k in range(hits, 121))
    assert (label_doubt(noise_n, labels_n, 10) is not None) == (tail >= 0.01)


def test_chance_is_what_shuffled_answers_reach() -> None:
    labels_n = labels_of(50, 20, 10)
    answers_n = RANDOM.choice(4, 80, p=(0.6, 0.2, 0.1, 0.1))
    shuffled = [float((RANDOM.permutation(answers_n) == labels_n).mean()) for _ in range(4000)]

    assert chance_level(answers_n, labels_n, 4) == pytest.approx(np.mean(shuffled), abs=0.005)


def test_the_best_answer_is_the_largest_logit_if_there_is_one() -> None:
    logits_BC = np.array([[1, 3, 2], [5, 5, 0], [np.nan, 1, 0], [np.inf, 0, 0], [-1, -3, -2]], np.float32)

    assert best_answers(logits_BC).tolist() == [1, 0, -1, -1, 0]
