"""The store: keys made of content, files that are believed only if they fit, one sweep per folder."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import UsageError
from exporter.schedule import ScheduleRequest
from exporter.sweep import Conditions, Point, Store, open_store
from tests.unit.sweep.counting_work import CONDITIONS, built, timed

R4 = Point(schedule=ScheduleRequest(r=4))
R8 = Point(schedule=ScheduleRequest(r=8))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with open_store(tmp_path / "sweep", CONDITIONS) as opened:
        return opened


def test_result_comes_back_under_the_same_conditions(store: Store) -> None:
    store.keep(R4, "built", built(R4))
    store.keep(R4, "timed", timed(R4))

    assert store.find(R4, "built").value == built(R4)
    assert store.find(R4, "timed").value == timed(R4)
    assert store.find(R8, "built").value is None and store.find(R8, "built").complaint is None


@pytest.mark.parametrize(
    ("conditions", "finds_built", "finds_timed"),
    [
        pytest.param(
            Conditions(timing={"threads": 1}, building={"weights": "ab12", "model": "tiny"}),
            True,
            True,
            id="order",
        ),
        pytest.param(replace(CONDITIONS, timing={"threads": 2}), True, False, id="other threads"),
        pytest.param(
            replace(CONDITIONS, building={"model": "tiny", "weights": "cd34"}),
            False,
            False,
            id="other weights",
        ),
    ],
)
def test_what_decides_a_result_decides_its_key(
    store: Store, conditions: Conditions, finds_built: bool, finds_timed: bool
) -> None:
    store.keep(R4, "built", built(R4))
    store.keep(R4, "timed", timed(R4))

    other = replace(store, conditions=conditions)

    assert (other.find(R4, "built").value is not None) is finds_built
    assert (other.find(R4, "timed").value is not None) is finds_timed


def test_key_covers_everything_in_a_point(store: Store) -> None:
    points = [
        R4,
        R8,
        replace(R4, method="pitome"),
        replace(R4, method_options=(("margin", 0.9),)),
        replace(R4, precision="fp16"),
        replace(R4, target="aoti"),
        replace(R4, schedule=ScheduleRequest(r=4, align=8)),
    ]

    assert len({store.key(point) for point in points}) == len(points)


def edited(path: Path, *at: str, to: Any) -> bytes:
    tree = json.loads(path.read_bytes())
    place = tree
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = to
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    ("at", "to", "message"),
    [
        pytest.param(("result", "gmacs_ratio"), 9.0, "was changed after it was written", id="edited figure"),
        pytest.param(
            ("inputs", "building", "weights"), "cd34", "belongs to another point", id="edited inputs"
        ),
        pytest.param(("schema_version",), 2, "no result of schema version 1", id="other version"),
        pytest.param(("result",), None, "was changed", id="no result"),
        pytest.param(("inputs",), float("nan"), "within 64 bits", id="NaN"),
    ],
)
def test_file_that_does_not_fit_is_not_believed_and_said(
    store: Store, at: tuple[str, ...], to: object, message: str
) -> None:
    store.keep(R4, "built", built(R4))
    path = store.path(R4, "built")
    path.write_bytes(edited(path, *at, to=to))

    found = store.find(R4, "built")

    assert found.value is None
    assert found.complaint and message in found.complaint and "computed again" in found.complaint


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"inputs": ', id="cut off"),
        pytest.param(b"\xff\x00", id="not text"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"[" * 100_000, id="too deep"),
    ],
)
def test_damaged_file_is_not_believed(store: Store, content: bytes) -> None:
    store.path(R4, "built").write_bytes(content)

    found = store.find(R4, "built")

    assert found.value is None and found.complaint


def test_file_under_another_point_s_name_is_not_believed(store: Store) -> None:
    store.keep(R4, "built", built(R4))
    store.path(R4, "built").rename(store.path(R8, "built"))

    assert store.find(R8, "built").value is None


def test_result_with_a_fitting_hash_but_another_form_is_not_believed(store: Store) -> None:
    store.keep(R4, "built", timed(R4))

    found = store.find(R4, "built")

    assert found.value is None and "tokens" in (found.complaint or "")


def test_half_written_files_of_a_killed_sweep_are_removed(tmp_path: Path) -> None:
    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        store.keep(R4, "built", built(R4))
        left = store.path(R4, "built").with_name(".ab.built.json.partial-0011")
        left.write_bytes(b"{")

    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        assert not left.exists()
        assert store.find(R4, "built").value == built(R4)


# The folder ----------------------------------------------------------------------------------------------------------


def test_second_sweep_in_a_folder_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    code = "import sys; from exporter.sweep import Conditions, open_store; c = Conditions(building={}, timing={})\n"
    code += "with open_store(sys.argv[1], c): print('in', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "sweep")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None and other.stdout.readline() == b"in\n"

    with (
        pytest.raises(UsageError, match=f"process {other.pid} on .* is sweeping here"),
        open_store(tmp_path / "sweep", CONDITIONS),
    ):
        pass

    other.kill()
    other.communicate()
    with open_store(tmp_path / "sweep", CONDITIONS) as store:
        assert str(os.getpid()) in (store.folder / ".lock").read_text()


def test_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with open_store(tmp_path / "sweep", CONDITIONS):
            pass


def test_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(UsageError, match="is not the folder of a sweep"), open_store(tmp_path, CONDITIONS):
        pass

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep").touch()

    with pytest.raises(UsageError, match="got a file"), open_store(tmp_path / "sweep", CONDITIONS):
        pass


def test_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(UsageError, match="cannot be written: Not a directory"),
        open_store(tmp_path / "file" / "sweep", CONDITIONS),
    ):
        pass
