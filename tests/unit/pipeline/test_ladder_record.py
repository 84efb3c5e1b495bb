"""What a ladder's record says of answers that are made up: gates, what else would do, and cautions."""

from dataclasses import replace

import numpy as np
import pytest

from exporter.errors import GateError
from exporter.ladder import upper_bound
from exporter.pipeline.ladder_answers import Answers
from exporter.pipeline.ladder_goal import LadderGoal
from exporter.pipeline.ladder_record import cautions, certified_ladder, timed
from exporter.pipeline.ladder_timing import Timed
from exporter.records import LadderRecord, LadderTiming, Ratio, RungRecord

IMAGES = 100


def answers(*wrong: int) -> Answers:
    """Of three engines: so many images, those of the lowest values, on which each differs from the dense model."""
    differs_KN = np.arange(IMAGES) < np.array(wrong)[:, None]
    values_KN = np.tile(np.arange(IMAGES) / IMAGES, (2, 1))
    sizes_N = np.arange(IMAGES)[::-1] / IMAGES
    return Answers(
        data="made up",
        fingerprint="0",
        values_KN=values_KN,
        differs_KN=differs_KN,
        sizes_N=sizes_N,
        repeated=0,
        unreadable=0,
    )


AGREEING = LadderGoal(agreement=0.95)


def record(found: Answers, *gmacs: float, goal: LadderGoal = AGREEING) -> LadderRecord:
    wrong = found.differs_KN.sum(axis=1)
    rungs = [
        RungRecord(name=name, sha256="", gmacs=each, share=0.0, disagreements=int(count), bound=count / 50)
        for name, each, count in zip(("r8", "r4", "dense"), gmacs, wrong, strict=True)
    ]
    return certified_ladder(rungs, found, goal, target="onnx", dense_gmacs=10.0)


def test_costs_are_those_of_every_engine_that_an_image_ran_on() -> None:
    found = record(
        answers(20, 0, 0), 2, 5, 10
    )  # 95 % of 100 images: one may differ, since 1 of 100 can be 4.66 %

    assert found.threshold == pytest.approx(0.185)
    assert [each.share for each in found.rungs] == [0.81, 0.0, 0.19]
    assert found.macs == pytest.approx(0.81 * 0.2 + 0.19 * 1.7)
    assert found.certificate.disagreements == 1


def test_single_engine_and_file_size_are_named_where_they_cost_less() -> None:
    found = record(answers(20, 0, 0), 2, 4, 10)

    assert (found.single, found.single_macs) == ("r4", 0.4)
    assert found.by_size is not None
    assert found.by_size.macs == pytest.approx(0.81 * 0.2 + 0.19 * 0.4)  # all on r4, then 81 of them on r8
    lines = list(cautions(found))
    assert "a single engine wins: r4 alone agrees as much with 40.0 %" in lines[0]
    assert "file size alone routes as well: 23.8 %" in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        pytest.param((0, 0, 9), "already dense alone differs from the dense model on 9 of 100", id="last"),
        pytest.param((100, 100, 0), "no answer of r8, r4 may be kept at 95 %", id="nothing is kept"),
    ],
)
def test_ladder_that_cannot_be_certified_is_refused(wrong: tuple[int, ...], complaint: str) -> None:
    found = answers(*wrong)
    if wrong[0] == IMAGES:
        found = replace(found, values_KN=np.ones_like(found.values_KN))  # all images move at once

    with pytest.raises(GateError, match=complaint):
        record(found, 2, 5, 10)


def test_engine_and_ladder_that_are_slower_than_the_last_engine_are_named() -> None:
    timing = LadderTiming(images=8, images_per_s=4.0, speedup=Ratio(value=0.5, interval=(0.4, 0.6)))
    found = timed(record(answers(3, 3, 0), 2, 9, 10), Timed(timing=timing, images_per_s=(16.0, 6.0, 8.0)))

    assert [line for line in cautions(found) if "this machine" in line] == [
        "r4 is 0.75x as fast as dense on this machine; leave it out",
        "the ladder is slower than dense alone on this machine",
    ]


@pytest.mark.parametrize("saving", [0.05, 0.3, 0.5, 0.75])
def test_a_saving_is_met_as_nearly_as_the_images_allow(saving: float) -> None:
    found = record(answers(20, 5, 0), 2, 4, 10, goal=LadderGoal(saving=saving))

    costs = [
        0.2 * kept + 1.6 * (100 - kept) for kept in range(101)
    ]  # of 100 images; both have the same values
    nearest = min(costs, key=lambda cost: abs(cost - 100 * (1 - saving)))
    assert found.macs == pytest.approx(nearest / 100)
    kept = costs.index(nearest)
    wrong = max(0, kept - 80)  # the twenty of the lowest values are wrong
    assert found.certificate.agreement is None
    assert found.certificate.disagreements == wrong
    assert found.certificate.bound == upper_bound(wrong, 100)
