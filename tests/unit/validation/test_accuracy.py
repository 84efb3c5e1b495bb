"""Hits, accuracy, the paired difference, its interval and its p-value, against definitions and known distributions."""

import math
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import top_k_accuracy_score  # type: ignore[import-untyped]

from exporter.errors import InternalError, UsageError
from exporter.validation.accuracy import (
    Hits,
    hits,
    join_hits,
    paired_interval,
    report_accuracy,
)

Array = npt.NDArray[Any]


def answers(first: Array, five: Array | None = None) -> Hits:
    return Hits(first=first.astype(bool), five=(first if five is None else five).astype(bool))


def paired(*, both: int = 0, lost: int = 0, gained: int = 0, neither: int = 0) -> dict[str, Hits]:
    """Hits of two contenders, from how many images both, only dense, only the engine or neither has right."""
    dense = np.repeat([1, 1, 0, 0], [both, lost, gained, neither])
    engine = np.repeat([1, 0, 1, 0], [both, lost, gained, neither])
    return {"dense": answers(dense), "onnx": answers(engine)}


@pytest.mark.parametrize(("classes", "images"), [(3, 100), (6, 500), (100, 300)])
def test_counts_are_those_of_scikit_learn(classes: int, images: int) -> None:
    generator = np.random.default_rng(classes)
    logits, labels = generator.standard_normal((images, classes)), generator.integers(0, classes, images)

    found = report_accuracy({"dense": hits(logits, labels)}).accuracy["dense"]

    top1, top5 = (
        top_k_accuracy_score(labels, logits, k=min(k, classes - 1), labels=range(classes)) for k in (1, 5)
    )
    assert found.top1 == pytest.approx(100 * top1)
    assert found.top5 == pytest.approx(100 * top5 if classes > 5 else 100.0)
    assert found.n == images


@given(data=st.data(), classes=st.integers(1, 8), images=st.integers(1, 5))
def test_ties_go_to_the_lower_index(data: st.DataObject, classes: int, images: int) -> None:
    few_levels = st.lists(st.integers(-1, 1), min_size=classes, max_size=classes)
    logits = data.draw(st.lists(few_levels, min_size=images, max_size=images))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))

    found = hits(np.asarray(logits, np.float32), np.asarray(labels))

    orders = [sorted(range(classes), key=lambda c, row=row: (-row[c], c)) for row in logits]  # type: ignore[misc]
    assert found.first.tolist() == [order[0] == label for order, label in zip(orders, labels, strict=True)]
    assert found.five.tolist() == [label in order[:5] for order, label in zip(orders, labels, strict=True)]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param([np.nan] * 6, id="nothing but NaN"),
        pytest.param([9.0, np.nan, 0, 0, 0, 0], id="one NaN"),
        pytest.param([np.inf, np.inf, 0, 0, 0, 0], id="overflow"),
        pytest.param([-np.inf] * 6, id="nothing but minus infinity"),
    ],
)
def test_row_without_an_answer_is_a_miss(row: list[float]) -> None:
    found = hits(np.asarray([row, [1, 0, 0, 0, 0, 0]]), np.asarray([0, 0]))

    assert found.first.tolist() == [False, True]
    assert found.five.tolist() == [False, True]


def test_masked_class_leaves_the_others_ranked() -> None:
    logits = np.asarray([[-np.inf, 1, 2, 0, 0, 0, 0]] * 3)

    assert hits(logits, np.asarray([2, 6, 0])).five.tolist() == [True, False, False]


@pytest.mark.parametrize("label", [-1, 10, 12])
def test_label_that_is_no_class_is_refused(label: int) -> None:
    with pytest.raises(UsageError, match=rf"labels 0 to 9.*10 classes, got {label};"):
        hits(np.zeros((2, 10)), np.asarray([3, label]))


@pytest.mark.parametrize("shape", [(2, 5, 10), (2,), (3, 10)])
def test_array_that_is_no_logits_for_the_labels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"expected logits \(images, classes\) for 2 labels"):
        hits(np.zeros(shape), np.asarray([0, 0]))


def test_chunks_add_up_to_the_whole() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.standard_normal((50, 12)), generator.integers(0, 12, 50)

    joined = join_hits(
        hits(logits[part], labels[part]) for part in (slice(0, 0), slice(0, 31), slice(31, 50))
    )

    assert joined.first.tolist() == (logits.argmax(axis=1) == labels).tolist()
    assert len(joined.five) == 50


def test_no_images_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one readable image"):
        join_hits([])
    with pytest.raises(UsageError, match="at least one readable image"):
        report_accuracy(paired())


def test_report_has_every_contender_and_differences_to_the_baseline_alone() -> None:
    three = {**paired(both=2, lost=1, neither=1), "trt": answers(np.asarray([1, 1, 1, 1]))}

    found = report_accuracy(three)

    assert {name: each.top1 for name, each in found.accuracy.items()} == {
        "dense": 75.0,
        "onnx": 50.0,
        "trt": 100.0,
    }
    assert {name: each.top1 for name, each in found.difference.items()} == {"onnx": -25.0, "trt": 25.0}
    assert report_accuracy(three, baseline="trt").difference["dense"].top1 == -25.0


@pytest.mark.parametrize("missing", [{}, {"onnx": answers(np.ones(3))}])
def test_contenders_over_other_images_are_a_broken_promise(missing: dict[str, Hits]) -> None:
    with pytest.raises(InternalError, match="equal numbers of images"):
        report_accuracy({**missing, "dense": answers(np.ones(4))} if missing else {})


# --- difference ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "points"),
    [
        pytest.param({"both": 300, "neither": 100}, 0.0, id="identical contenders"),
        pytest.param({"lost": 1}, -100.0, id="one image"),
    ],
)
def test_where_all_images_agree_the_interval_has_no_width(images: dict[str, int], points: float) -> None:
    difference = report_accuracy(paired(**images)).difference["onnx"]

    assert (difference.top1, difference.interval, difference.p_value) == (points, (points, points), 1.0)


@given(lost=st.integers(0, 40), gained=st.integers(0, 40))
def test_p_value_is_that_of_fair_coin_tosses(lost: int, gained: int) -> None:
    points = np.repeat([-1, 1], [lost, gained])
    contenders = {"dense": answers(np.append(points < 0, True)), "onnx": answers(np.append(points > 0, True))}

    found = report_accuracy(contenders, baseline="dense").difference["onnx"].p_value

    tail = sum(math.comb(lost + gained, i) for i in range(min(lost, gained) + 1)) / 2 ** (lost + gained)
    assert found == pytest.approx(min(1.0, 2 * tail))


def test_interval_is_that_of_the_mean_paired_difference() -> None:
    difference = report_accuracy(paired(both=150, lost=30, gained=10, neither=10)).difference["onnx"]

    error = 100 * np.sqrt(
        (40 / 200 - 0.1**2) / 200
    )  # of a mean of 200 values, of which 30 are -1 and 10 are 1
    assert difference.top1 == pytest.approx(-10.0)
    assert difference.interval == pytest.approx(
        (-10 - 1.96 * error, -10 + 1.96 * error), abs=0.6
    )  # 1 step = 0.5


SIMULATIONS = 300


def test_interval_covers_a_known_difference_as_often_as_it_says() -> None:
    """Pairs of Bernoulli answers that depend on each other: 6 % of images are lost and 4 % gained, a true -2 points.

    If 95 % of intervals cover, the number of them that do is Binomial(300, 0.95), and outside of its central 99.9 %,
    which is taken as the tolerance, once in 1,000. It fails both ways: an interval that ignored the pairing would, at
    80 % accuracy, be 1.8 times as wide and cover in all 300; one of half the width would cover in 67 %.
    """
    generator = np.random.default_rng(2024)
    simulated = generator.choice([-100.0, 0.0, 100.0], p=[0.06, 0.90, 0.04], size=(SIMULATIONS, 400))

    intervals = [paired_interval(points, resamples=999) for points in simulated]

    covered = sum(low <= -2.0 <= high for low, high in intervals)
    fewest, most = binom.interval(0.999, SIMULATIONS, 0.95)
    assert fewest <= covered <= most
    assert most < SIMULATIONS


def test_same_images_give_the_same_interval() -> None:
    same = paired(both=60, lost=7, gained=2)

    assert report_accuracy(same) == report_accuracy(same)


def test_fifty_thousand_images_need_little_memory() -> None:
    points = np.random.default_rng(0).choice([-100.0, 0.0, 100.0], p=[0.03, 0.95, 0.02], size=50_000)

    tracemalloc.start()
    paired_interval(points, resamples=999)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak_bytes < 200e6, (
        "all resamples at once would be 800 MB with their indices, and 8 GB at full number"
    )


# --- sabotage --------------------------------------------------------------------------------------------------------


def test_two_swapped_classes_cost_what_their_images_are_worth() -> None:
    labels = np.arange(100) % 10
    logits = np.eye(10)[labels]
    swapped = logits[:, [0, 1, 7, 3, 4, 5, 6, 2, 8, 9]]

    found = report_accuracy({"dense": hits(logits, labels), "onnx": hits(swapped, labels)})

    assert found.accuracy["onnx"].top1 == 80.0
    assert found.difference["onnx"].top1 == -20.0
    assert found.difference["onnx"].interval[1] < -10
    assert found.difference["onnx"].p_value == pytest.approx(2 * 0.5**20)
