"""Goals of a sweep, with points whose figures follow a formula; and the dense model, which runs once for all."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exporter.cli.sweep_summary import failed_line, failed_status
from exporter.errors import UsageError
from exporter.models import ModelRequest, shipped_data
from exporter.pipeline import BenchOptions, Goal, SweepRequest, plan_export, sweep
from exporter.pipeline.plan import Planned
from exporter.pipeline.sweep import points_lost
from exporter.recipe import Recipe, Validation
from exporter.records import Accuracy, Difference, Fidelity, Ratio
from exporter.reduction import method
from exporter.schedule import Geometry, ScheduleRequest, plan
from exporter.sweep import (
    Axes,
    Built,
    Point,
    PointResult,
    Quality,
    Timed,
    read_record,
)

GEOMETRY = Geometry(tokens=65, protected=1, blocks=8)
"""Of `vit_digits`."""

LOST_PER_TOKEN = 0.05
LOST_PER_DROPPED = 0.02
RECIPE = Recipe(model=ModelRequest(model="vit_digits"))
SWEEP = importlib.import_module("exporter.pipeline.sweep")


def lost(merged: Sequence[int], dropped: Sequence[int] = ()) -> float:
    """Points of top-1: a twentieth for every token merged, and less for one that is dropped."""
    return LOST_PER_TOKEN * sum(merged) + LOST_PER_DROPPED * sum(dropped)


def latency_ms(tokens: Sequence[int]) -> float:
    """A millisecond for every token that enters a block."""
    return float(sum(tokens[:-1]))


def made_up(point: Point) -> PointResult:
    schedule = plan(point.schedule, method(point.method).limited(GEOMETRY, {}))
    tokens, latency = schedule.tokens, latency_ms(schedule.tokens)
    speedup = latency_ms([GEOMETRY.tokens] * len(tokens)) / latency
    drop = lost(schedule.merged, schedule.dropped)
    quality = Quality(
        accuracy=Accuracy(top1=98 - drop, top5=100.0, n=454),
        difference=Difference(top1=-drop, interval=(-drop - 0.1, -drop + 0.1)),
    )
    return PointResult(
        name=point.name,
        point=point,
        key="0",
        status="done",
        built=Built(
            tokens=tokens, merged=schedule.merged, gmacs_executed=1.0, gmacs_ratio=1.0, quality=quality
        ),
        timed=Timed(
            images_per_s=1000 / latency,
            latency_ms=latency,
            latency_error_ms=0.01,
            speedup=None if point == point.dense else Ratio(value=speedup, interval=(speedup, speedup)),
        ),
    )


@pytest.fixture(scope="module")
def planned() -> Planned:
    """The model, captured once for all sweeps."""
    return plan_export(RECIPE)


@pytest.fixture
def builds(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """No engine is built: every point gets its figures from the formulas. Which points were asked for."""
    asked: list[Point] = []
    monkeypatch.setattr(SWEEP, "plan_export", lambda recipe, _: replace(planned, recipe=recipe))

    def drive(points: Sequence[Point], *_: object, **__: object) -> tuple[PointResult, ...]:
        asked.extend(points)
        return tuple(map(made_up, points))

    monkeypatch.setattr(SWEEP, "drive", drive)
    return asked


@pytest.fixture
def drives(builds: list[Point], monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """As `builds`, and the dense model does not run either."""
    monkeypatch.setattr(SWEEP, "collect", lambda *_, **__: None)
    monkeypatch.setattr(SWEEP, "dense_doubts", lambda *_: ())
    return builds


def request(goal: Goal | None, **axes: Any) -> SweepRequest:
    return SweepRequest(
        recipe=RECIPE, axes=Axes(**{"r": [0], **axes}), goal=goal, options=BenchOptions(launches=2), jobs=1
    )


def constant(good: Callable[[Sequence[int], Sequence[int]], bool]) -> list[tuple[int, ...]]:
    """The constant schedules, least merging first, of which something is true."""
    plans = [plan(ScheduleRequest(r=r), GEOMETRY) for r in range(1, 33)]
    return [each.merged for each in plans if good(each.merged, each.tokens)]


@pytest.mark.parametrize("limit", [0.5, 1.0, 2.3])
def test_most_merging_that_loses_little_enough(limit: float, drives: list[Point], tmp_path: Path) -> None:
    record = sweep(request(Goal(kind="max_drop", limit=limit)), tmp_path / "sweep")

    assert record.solution is not None
    assert record.solution.reached
    assert record.solution.best is not None
    assert record.solution.best.r_per_layer == constant(lambda merged, _: lost(merged) <= limit)[-1]
    assert read_record(tmp_path / "sweep") == record


def test_search_over_pairs_of_merged_and_dropped_counts_ends(drives: list[Point], tmp_path: Path) -> None:
    """Where dropping costs less than merging, the most that can be dropped of every block is the answer."""
    limit = 0.5

    record = sweep(request(Goal(kind="max_drop", limit=limit), methods={"diffrate": {}}), tmp_path / "sweep")

    assert record.complete
    assert record.solution is not None
    assert record.solution.reached
    assert record.solution.best is not None
    each = int(limit / LOST_PER_DROPPED / GEOMETRY.blocks)
    assert record.solution.best.drop_per_layer == (each,) * GEOMETRY.blocks
    assert not any(record.solution.best.r_per_layer)
    assert len({point.schedule.drop_share for point in drives if point.schedule.r}) == 3
    assert len(set(drives)) < 60


def test_least_merging_that_is_fast_enough(drives: list[Point], tmp_path: Path) -> None:
    dense = 8 * 65
    expected = constant(lambda _, tokens: dense / latency_ms(tokens) >= 1.5)[0]

    record = sweep(request(Goal(kind="min_speedup", limit=1.5)), tmp_path / "sweep")

    assert record.solution is not None
    assert record.solution.reached
    assert record.solution.best is not None
    assert record.solution.best.r_per_layer == expected
    assert record.solution.best.measured_speedup is not None
    assert record.solution.best.measured_speedup >= 1.5


def test_captions_do_not_judge_points(drives: list[Point], tmp_path: Path) -> None:
    asked = replace(request(None), recipe=replace(RECIPE, validate=Validation(pairs="pairs.csv")))

    with pytest.raises(UsageError, match="validate.pairs"):
        sweep(asked, tmp_path / "sweep")


def test_interrupted_search_records_the_points_that_are_finished(
    drives: list[Point], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = 0

    def drive(points: Sequence[Point], *_: object, **__: object) -> tuple[PointResult, ...]:
        nonlocal calls
        calls += 1
        if calls > 1:  # the first call measures the latency table
            raise KeyboardInterrupt
        return tuple(map(made_up, points))

    monkeypatch.setattr(SWEEP, "drive", drive)
    monkeypatch.setattr(SWEEP, "finished", lambda points, _: tuple(map(made_up, points)))

    with pytest.raises(KeyboardInterrupt):
        sweep(request(Goal(kind="max_drop", limit=1.0)), tmp_path / "sweep")

    record = read_record(tmp_path / "sweep")
    assert len(record.points) >= 1
    assert not record.complete


@pytest.mark.parametrize(
    "goal", [Goal(kind="max_drop", limit=0.01), Goal(kind="min_speedup", limit=1000.0)], ids=["drop", "speed"]
)
def test_goal_out_of_reach_is_recorded_and_has_its_status(
    goal: Goal, drives: list[Point], tmp_path: Path
) -> None:
    record = sweep(request(goal), tmp_path / "sweep")

    assert record == read_record(tmp_path / "sweep")
    assert failed_status(record) == 6
    assert record.complete
    assert record.solution is not None
    assert not record.solution.reached
    assert "best was" in record.solution.explanation or "covers no schedule" in record.solution.explanation
    assert record.solution.explanation in failed_line(record)


@pytest.mark.parametrize(
    "axes", [{"targets": ["onnx", "trt"]}, {"precisions": ["fp32", "fp16"]}], ids=["targets", "precisions"]
)
def test_goal_is_for_one_engine(axes: dict[str, list[str]], drives: list[Point], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one engine"):
        sweep(request(Goal(kind="max_drop", limit=1.0), **axes), tmp_path / "sweep")

    assert drives == []
    assert not (tmp_path / "sweep").exists()


def test_grid_asks_for_dense_points_as_well(drives: list[Point], tmp_path: Path) -> None:
    record = sweep(request(None, r=[4, 8]), tmp_path / "sweep")

    assert [point.schedule.r for point in drives] == [0, 4, 8]
    assert record.solution is None
    assert set(record.front) == {result.name for result in record.points}


def test_interrupted_sweep_leaves_a_record(
    drives: list[Point], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SWEEP, "drive", interrupted)

    with pytest.raises(KeyboardInterrupt):
        sweep(request(None, r=[4]), tmp_path / "sweep")

    assert not read_record(tmp_path / "sweep").complete
    assert not (tmp_path / "sweep" / "work").exists()


def test_dense_model_sees_every_image_once(
    drives: list[Point], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over two sweeps of one folder."""
    seen: list[int] = []
    honest = SWEEP.dense_contender

    def counting(planned: Any) -> Any:
        run = honest(planned)

        def counted(pixels_BCHW: Any) -> Any:
            seen.append(len(pixels_BCHW))
            return run(pixels_BCHW)

        return counted

    monkeypatch.setattr(SWEEP, "collect", importlib.import_module("exporter.validation").collect)
    monkeypatch.setattr(SWEEP, "default_workers", lambda _: 0)
    monkeypatch.setattr(SWEEP, "dense_contender", counting)

    sweep(request(None, r=[4]), tmp_path / "sweep")
    sweep(request(None, r=[4, 8]), tmp_path / "sweep")

    assert sum(seen) == 454


def fidelity(**figures: Any) -> Quality:
    return Quality(fidelity=Fidelity(n=9, cosine_min=0.5, **figures))


@pytest.mark.parametrize(
    ("quality", "points"),
    [
        pytest.param(Quality(), None, id="nothing measured"),
        pytest.param(
            Quality(difference=Difference(top1=-0.7, interval=(-1.0, 0.0))), 0.7, id="labels before all"
        ),
        pytest.param(fidelity(top1_agreement=97.0, cosine_mean=0.9), 3.0, id="disagreement"),
        pytest.param(fidelity(cosine_mean=0.98), 2.0, id="cosine"),
    ],
)
def test_points_lost(quality: Quality, points: float | None) -> None:
    assert points_lost(quality) == (None if points is None else pytest.approx(points))


def test_what_was_left_out_and_doubts_about_the_labels_are_in_the_record(
    builds: list[Point], tmp_path: Path
) -> None:
    shipped = shipped_data(RECIPE.model)
    assert shipped is not None
    for number in range(60):
        digit = int(shipped.labels[number])
        place = tmp_path / "images" / "abcdefghij"[digit - 1]  # a is one, and the model's first class zero
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shipped.images_BHWC[number]).save(place / f"{number}.png")
    (tmp_path / "images" / "a" / "photo.heic").write_bytes(b"")
    asked = replace(
        request(None),
        recipe=replace(RECIPE, validate=Validation(data=str(tmp_path / "images"), labels_in_order=True)),
    )

    left_out, doubt = sweep(asked, tmp_path / "sweep").notes

    assert left_out.startswith("1 file (1 .heic) left out")
    assert "no better than by chance" in doubt
    assert "probably numbered otherwise" in doubt
