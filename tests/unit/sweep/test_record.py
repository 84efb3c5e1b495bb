"""`sweep.json`: what is written comes back, and nothing else is read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import BundleError
from exporter.schedule import ScheduleRequest
from exporter.sweep import SWEEP_FILE, Point, PointResult, SweepRecord, read_record, write_record
from tests.support.report_sweep import sweep_record

ODD = Point(
    method="pitome",
    method_options=(("margin", 0.9),),
    schedule=ScheduleRequest(keep_per_layer=(0.5, 1.0)),
    precision="fp16",
)
LISTED = Point(schedule=ScheduleRequest(r_per_layer=(4, 4)))
OPEN = [PointResult(name=each.name, point=each, key="ff", status="open") for each in (ODD, LISTED)]
RECORD: SweepRecord = replace(sweep_record(), points=(*sweep_record().points, *OPEN))


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
    done, failed = RECORD.points[2], RECORD.points[-4]

    assert (done.tokens, done.images_per_s) == ((65, 61, 57), 560.0)
    assert done.gmacs_executed == pytest.approx(0.036)
    assert done.speedup is not None and done.speedup.value == pytest.approx(1.4)
    measures = [done.quality.of(each) for each in ("top1", "top1_agreement", "cosine_mean")]
    assert measures == [97.75, None, 0.99]
    assert (failed.tokens, failed.images_per_s, failed.quality.of("top1")) == (None, None, None)


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
