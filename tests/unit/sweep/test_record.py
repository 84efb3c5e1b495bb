"""`sweep.json`: what is written comes back, and nothing else is read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import BundleError
from exporter.records import Accuracy, Difference, Fidelity, Ratio
from exporter.schedule import ScheduleRequest
from exporter.sweep import (
    SWEEP_FILE,
    Built,
    Evaluation,
    Failure,
    Point,
    PointResult,
    Quality,
    Solution,
    SweepRecord,
    Timed,
    read_record,
    write_record,
)

BUILT = Built(
    tokens=(17, 13, 9),
    merged=(4, 4),
    gmacs_executed=0.02,
    gmacs_ratio=1.5,
    quality=Quality(
        accuracy=Accuracy(top1=97.5, top5=100.0, n=454),
        difference=Difference(top1=-0.5, interval=(-1.25, 0.25), p_value=0.5),
        fidelity=Fidelity(n=454, top1_agreement=99.0, cosine_mean=0.999, cosine_min=0.95),
    ),
    digest="ab12",
    notes=("schedule capped",),
)
TIMED = Timed(images_per_s=812.5, latency_ms=1.25, speedup=Ratio(value=1.4, interval=(1.35, 1.45)))
DONE = PointResult(
    name="tome-list8",
    point=Point(
        method="pitome",
        method_options=(("margin", 0.9),),
        schedule=ScheduleRequest(r_per_layer=(4, 4)),
        precision="fp16",
    ),
    key="ff00",
    status="done",
    built=BUILT,
    timed=TIMED,
)
FAILED = PointResult(
    name="r9",
    point=Point(schedule=ScheduleRequest(keep_per_layer=(0.5, 1.0))),
    key="ff01",
    status="failed",
    failure=Failure(stage="build", error="schedule: too much", exit_status=2),
)
RECORD = SweepRecord(
    model="vit_digits",
    weights_sha256="00ff",
    data="digits",
    quality_measure="top1",
    environment={"cpu": "some", "cores": 2, "packages": {"numpy": "2.0"}},
    points=(DONE, FAILED),
    front=("tome-list8",),
    solution=Solution(
        goal="max_drop",
        limit=0.5,
        best=Evaluation(name="tome-list8", r_per_layer=(4, 4), drop=0.5, measured_speedup=1.4),
        reached=True,
        explanation="found",
        evaluated=(),
    ),
    complete=True,
)


def test_record_comes_back_as_it_was(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)

    assert read_record(tmp_path) == RECORD


def test_file_is_canonical_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    content = (tmp_path / SWEEP_FILE).read_text(encoding="ascii")

    write_record(tmp_path, read_record(tmp_path))

    assert (tmp_path / SWEEP_FILE).read_text(encoding="ascii") == content
    assert content == json.dumps(json.loads(content), sort_keys=True, indent=2) + "\n"
    assert [path.name for path in tmp_path.iterdir()] == [SWEEP_FILE]


def test_figures_are_at_hand_on_the_result() -> None:
    assert (DONE.tokens, DONE.gmacs_executed) == ((17, 13, 9), 0.02)
    assert (DONE.images_per_s, DONE.speedup and DONE.speedup.value) == (812.5, 1.4)
    assert [DONE.quality.of(each) for each in ("top1", "top1_agreement", "cosine_mean")] == [
        97.5,
        99.0,
        0.999,
    ]
    assert (FAILED.tokens, FAILED.images_per_s, FAILED.quality.of("top1")) == (None, None, None)


def damaged(change: dict[str, Any], *at: str | int) -> bytes:
    """Return RECORD's JSON with other keys at a place."""
    tree = json.loads(json.dumps(RECORD, default=vars))
    place = tree
    for key in at:
        place = place[key]
    place.update(change)
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"{", "not sound JSON", id="cut off"),
        pytest.param(damaged({"extra": 1}), 'top level: unknown key "extra"', id="unknown key"),
        pytest.param(
            damaged({"extra": 1}, "points", 0, "point", "schedule"), "extra", id="unknown key, deep"
        ),
        pytest.param(damaged({"schema_version": 2}), "schema_version: ", id="other version"),
        pytest.param(damaged({"model": None}), "model: ", id="no model"),
        pytest.param(
            damaged({"gmacs_ratio": "1.5"}, "points", 0, "built"), "gmacs_ratio", id="text for a number"
        ),
        pytest.param(damaged({"status": "fine"}, "points", 0), "points\\[0\\].status: ", id="unknown status"),
        pytest.param(damaged({"images_per_s": float("nan")}, "points", 0, "timed"), "images_per_s", id="NaN"),
        pytest.param(damaged({"front": ["r7"]}), "front names r7", id="front of strangers"),
    ],
)
def test_damaged_file_is_refused_in_one_line_that_says_where(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / SWEEP_FILE).write_bytes(content)

    with pytest.raises(BundleError, match=message) as caught:
        read_record(tmp_path)

    assert "\n" not in str(caught.value)


def test_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="give the folder of a sweep"):
        read_record(tmp_path)


def test_infinite_figure_is_never_written(tmp_path: Path) -> None:
    endless = replace(RECORD, environment={"load": float("inf")})

    with pytest.raises(ValueError, match="JSON"):
        write_record(tmp_path, endless)

    assert list(tmp_path.iterdir()) == []
