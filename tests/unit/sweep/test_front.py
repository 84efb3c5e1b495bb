"""The front: against its definition, and against tables whose front is known."""

from math import nan

from hypothesis import given
from hypothesis import strategies as st

from exporter.records import Accuracy, Fidelity
from exporter.schedule import ScheduleRequest
from exporter.sweep import (
    Built,
    Point,
    PointResult,
    Quality,
    QualityMeasure,
    Timed,
    front_names,
    pareto_front,
    quality_measure,
)

FIGURES = st.one_of(st.integers(0, 6).map(float), st.none(), st.just(nan))


def by_definition(qualities: list[float | None], throughputs: list[float | None]) -> set[int]:
    """Return what nobody dominates, by looking at every pair."""
    known = [
        (index, quality, speed)
        for index, (quality, speed) in enumerate(zip(qualities, throughputs, strict=True))
        if quality is not None and speed is not None and quality == quality and speed == speed
    ]
    return {
        index
        for index, quality, speed in known
        if not any(q >= quality and s >= speed and (q > quality or s > speed) for _, q, s in known)
    }


@given(st.lists(st.tuples(FIGURES, FIGURES), max_size=25))
def test_front_is_what_nobody_dominates(table: list[tuple[float | None, float | None]]) -> None:
    qualities, throughputs = [row[0] for row in table], [row[1] for row in table]

    front = pareto_front(qualities, throughputs)

    assert set(front) == by_definition(qualities, throughputs)
    assert len(set(front)) == len(front)
    assert list(front) == sorted(front, key=lambda index: (throughputs[index] or 0, index))


def test_front_of_a_table_drawn_by_hand() -> None:
    #            front  slower    front  beaten  front  worse at the same speed
    qualities = [84.5, 84.0, 83.9, 83.0, 82.6, 80.0]
    images_per_s = [100, 90, 134, 120, 165, 165]

    assert pareto_front(qualities, images_per_s) == (0, 2, 4)


def test_equal_points_are_on_the_front_together() -> None:
    assert pareto_front([84.0, 84.0, 83.0], [100, 100, 90]) == (0, 1)


def test_nothing_known_makes_an_empty_front() -> None:
    assert pareto_front([None, 84.0], [100, None]) == ()


def result(r: int, quality: Quality, images_per_s: float | None) -> PointResult:
    point = Point(schedule=ScheduleRequest(r=r))
    return PointResult(
        name=f"r{r}",
        point=point,
        key="",
        status="open" if images_per_s is None else "done",
        built=Built(tokens=(17,), merged=(), gmacs_executed=1, gmacs_ratio=1, quality=quality),
        timed=None if images_per_s is None else Timed(images_per_s=images_per_s, latency_ms=1),
    )


def accuracy(top1: float) -> Quality:
    return Quality(accuracy=Accuracy(top1=top1, top5=100, n=10))


def fidelity(agreement: float | None, cosine: float) -> Quality:
    return Quality(fidelity=Fidelity(n=10, top1_agreement=agreement, cosine_mean=cosine, cosine_min=0))


def test_front_of_results_leaves_unfinished_points_out() -> None:
    results = [result(0, accuracy(84), 100), result(4, accuracy(85), None), result(8, accuracy(82), 150)]

    assert front_names(results, "top1") == ("r0", "r8")


def test_quality_measure_is_the_best_one_that_all_finished_points_have() -> None:
    with_accuracy = [result(0, accuracy(84), 100), result(8, accuracy(82), 150)]
    with_agreement = [result(0, fidelity(99, 0.9), 100), result(8, fidelity(98, 0.8), 150)]
    embeddings = [result(0, fidelity(None, 0.9), 100), result(8, fidelity(98, 0.8), 150)]
    expected: list[QualityMeasure | None] = ["top1", "top1_agreement", "cosine_mean", None, None]

    tables = [with_accuracy, with_agreement, embeddings, [*with_accuracy, *with_agreement], []]

    assert [quality_measure(table) for table in tables] == expected
