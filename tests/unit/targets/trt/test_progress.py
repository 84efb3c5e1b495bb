"""TensorRT's tree of phases as one number that only grows."""

import threading

import pytest

from exporter.targets.trt.progress import PARTS, PhaseTree


def heard() -> tuple[list[int], PhaseTree]:
    said: list[int] = []
    return said, PhaseTree(lambda done, parts: said.append(done))


def test_steps_of_inner_phases_count_within_the_outer_step() -> None:
    said, tree = heard()

    tree.start("Building", None, 4)
    tree.step("Building", 0)
    tree.start("Timing", "Building", 2)
    tree.step("Timing", 0)
    tree.start("Tactics", "Timing", 5)
    tree.step("Tactics", 0)

    assert said == [0, 250, 375, 400]  # 1/4, + 1/2 of 1/4, + 1/5 of 1/2 of 1/4


def test_phase_that_ends_early_does_not_turn_back() -> None:
    said, tree = heard()

    tree.start("Building", None, 2)
    tree.start("Timing", "Building", 2)
    tree.step("Timing", 0)
    tree.finish("Timing")
    tree.step("Building", 0)

    assert said == [0, 250, 500]


def test_end_is_reported() -> None:
    said, tree = heard()

    tree.start("Building", None, 3)
    tree.finish("Building")

    assert said[-1] == PARTS


def test_unknown_phase_is_ignored() -> None:
    said, tree = heard()

    assert tree.step("nobody", 3)
    tree.finish("nobody")

    assert said == []


def test_exception_is_kept_and_stops_the_build() -> None:
    def failing(done: int, parts: int) -> None:
        raise ValueError("broken bar")

    tree = PhaseTree(failing)
    tree.start("Building", None, 2)

    assert not tree.step("Building", 0)
    with pytest.raises(ValueError, match="broken bar"):
        raise tree.interrupted or AssertionError("nothing was kept")


def test_threads_may_report_at_once() -> None:
    said, tree = heard()
    tree.start("Building", None, 400)

    def work(first: int) -> None:
        for step in range(first, first + 100):
            tree.step("Building", step)

    threads = [threading.Thread(target=work, args=(100 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(said) <= {int(PARTS * step / 400) for step in range(401)}
    assert said == sorted(said)
    assert tree.interrupted is None
