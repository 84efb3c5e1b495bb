"""A run: vectors as a plain loop gives them, in shards that a stopped run goes on with."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from exporter.bundle import Bundle, locked
from exporter.embed import embed
from exporter.embed.encode import output_of, preprocess_of
from exporter.embed.parquet import read_footer
from exporter.embed.worker import shard_file
from exporter.errors import BundleError, ExportError, GateError, UsageError
from exporter.records import write_whole
from exporter.version import __version__
from tests.unit.embed.conftest import Ask

pytestmark = pytest.mark.usefixtures("in_this_process")

NAMES = [f"{number}.png" for number in range(7)]


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return all rows of all shards, in order."""
    return [
        row for path in sorted(out.glob("*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()
    ]


def contents(out: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_vectors_are_those_of_a_plain_loop_and_a_corrupt_image_is_a_row_with_its_error(
    ask: Ask, expected: dict[str, Any]
) -> None:
    told: list[tuple[int, int]] = []

    embedded = embed(ask(), lambda done, total: told.append((done, total)))

    rows = rows_of(embedded.out)
    assert [row["path"] for row in rows] == NAMES
    assert rows[3] == {"path": "3.png", "logits": None, "error": "not an image of a known format"}
    for row in rows[:3] + rows[4:]:
        np.testing.assert_allclose(row["logits"], expected[row["path"]], atol=1e-5)
        assert row["error"] is None
    assert told == [(3, 7), (6, 7), (7, 7)]
    assert json.loads((embedded.out / "done.json").read_text()) == {
        "plan": embedded.plan.key,
        "rows": 7,
        "embedded": 6,
        "errors": 1,
        "shards": 3,
        "given_up": [],
    }
    assert sorted(contents(embedded.out)) == [
        "done.json",
        "plan.json",
        *(f"shard-00000{n}.parquet" for n in range(3)),
    ]


def test_the_column_of_vectors_is_a_list_of_fixed_size_and_the_footer_names_bundle_and_version(
    ask: Ask, bundle: Bundle
) -> None:
    embedded = embed(ask(dtype="float16"))

    schema = pyarrow.parquet.read_schema(shard_file(embedded.out, 1))
    assert str(schema.field("logits").type) == f"fixed_size_list<element: halffloat>[{embedded.plan.length}]"
    footer = read_footer(shard_file(embedded.out, 1))
    assert footer is not None
    assert (footer.bundle, footer.exporter) == (bundle.manifest.digest, __version__)
    assert (footer.shard, footer.rows, footer.errors) == (1, 3, 1)
    assert footer.first_error == "3.png: not an image of a known format"


def test_the_same_command_again_changes_nothing(ask: Ask) -> None:
    out = embed(ask()).out
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}

    again = embed(ask())

    assert (again.found, again.images_per_s) == (3, None)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")} == before


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _take_another(path: Path) -> None:
    shutil.copy(shard_file(path.parent, 0), path)


@pytest.mark.parametrize("damage", [_remove, _cut, _take_another])
def test_a_shard_that_is_not_whole_is_embedded_again_and_is_the_same_to_the_byte(
    ask: Ask, damage: Callable[[Path], None]
) -> None:
    out = embed(ask()).out
    whole = contents(out)
    damage(shard_file(out, 1))
    (out / ".shard-000001.parquet.partial-0badcafe").write_bytes(b"of a worker that was killed")

    assert embed(ask()).found == 2

    assert contents(out) == whole


def test_a_shard_of_another_plan_is_embedded_again(ask: Ask, tmp_path: Path) -> None:
    other = embed(ask(dtype="float16", out=tmp_path / "other")).out
    out = embed(ask()).out
    whole = contents(out)
    shard_file(out, 1).write_bytes(shard_file(other, 1).read_bytes())

    assert embed(ask()).found == 2

    assert contents(out) == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"shard": 4}, "another shard size: expected 3, got 4", id="shard size"),
        pytest.param({"dtype": "float16"}, "another dtype: expected float32, got float16", id="dtype"),
        pytest.param({"target": "openvino"}, "another target: expected onnx, got openvino", id="target"),
    ],
)
def test_a_folder_with_another_plan_is_refused_and_stays(
    ask: Ask, change: dict[str, Any], words: str
) -> None:
    out = embed(ask()).out
    before = contents(out)

    with pytest.raises(UsageError, match=words):
        embed(ask(**change))

    assert contents(out) == before


def test_data_that_changed_since_the_plan_are_named(ask: Ask, photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "photos"))
    embed(ask(data=str(data)))
    os.utime(data / "4.png", ns=(0, 0))

    with pytest.raises(UsageError, match=r"another state of the data \(images 4 to 6 changed\)"):
        embed(ask(data=str(data)))

    (data / "6.png").unlink()
    with pytest.raises(UsageError, match="another number of images: expected 7, got 6"):
        embed(ask(data=str(data)))


def test_data_that_change_while_they_are_embedded_stop_the_run(
    ask: Ask, photos: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "photos"))

    with pytest.raises(UsageError, match="images 7 to 7 changed while it was being embedded"):
        embed(ask(data=str(data)), lambda done, _: os.utime(data / "6.png", ns=(0, 0)))


def test_too_many_errors_stop_the_run_and_what_is_written_stays_for_a_larger_limit(ask: Ask) -> None:
    with pytest.raises(GateError, match=r"1 of 7 images .* --max-errors 0 .* 3.png: not an image") as stopped:
        embed(ask(max_errors="0"))

    assert stopped.value.exit_status == 6
    assert not (Path(ask().out) / "done.json").exists()
    assert embed(ask(max_errors="1")).found == 2


def test_a_full_disk_keeps_the_shards_that_are_written(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [1]

    def filling(path: Path, content: bytes) -> None:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        left.pop()
        write_whole(path, content)

    monkeypatch.setattr("exporter.embed.worker.write_whole", filling)
    with pytest.raises(OSError, match="No space left"):
        embed(ask())
    monkeypatch.undo()

    assert sorted(contents(Path(ask().out))) == ["plan.json", "shard-000000.parquet"]


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        pytest.param(
            {"target": "trt"}, UsageError, 'no target "trt"; this bundle has: onnx, openvino', id="target"
        ),
        pytest.param({"output": "logit"}, UsageError, "expected one of logits, got logit", id="output"),
        pytest.param(
            {"max_errors": "101%"}, UsageError, "max-errors: expected a number of images", id="share"
        ),
        pytest.param(
            {"max_errors": "some"}, UsageError, "max-errors: expected a number of images", id="limit"
        ),
        pytest.param({"bundle": "nowhere"}, BundleError, "nowhere: expected a bundle folder", id="bundle"),
        pytest.param({"carry": ("label",)}, UsageError, "has no columns to carry along", id="carry"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    ask: Ask, tmp_path: Path, change: dict[str, Any], kind: type[ExportError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        embed(ask(**change))

    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()

    with pytest.raises(UsageError, match=r"expected an empty folder or one with a plan.json, got thesis.txt"):
        embed(ask())


def test_a_folder_that_another_process_holds_is_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with locked(tmp_path / "out"), pytest.raises(UsageError, match="another process is embedding into it"):
        embed(ask())


def test_a_bundle_without_images_or_without_vectors_is_refused(bundle: Bundle) -> None:
    (logits,) = bundle.manifest.outputs
    texts = replace(bundle, manifest=replace(bundle.manifest, preprocess=None))
    maps = replace(
        bundle, manifest=replace(bundle.manifest, outputs=(replace(logits, shape=("batch", 16, 10)),))
    )

    with pytest.raises(UsageError, match="expected a bundle that takes images, got one that takes images"):
        preprocess_of(texts)
    with pytest.raises(UsageError, match="expected one vector per image, got logits with 16x10 numbers"):
        output_of(maps, None)


def test_values_of_a_parquet_table_keep_their_types(ask: Ask, photos: Path, tmp_path: Path) -> None:
    columns = {"image": [f"{photos}/{n}.png" for n in range(2)], "id": [7, None], "good": [True, False]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "list.parquet")

    out = embed(ask(data=str(tmp_path / "list.parquet"), carry=("id", "good"))).out

    schema = pyarrow.parquet.read_schema(shard_file(out, 0))
    assert [str(schema.field(name).type) for name in ("id", "good")] == ["int64", "bool"]
    assert [(row["id"], row["good"]) for row in rows_of(out)] == [(7, True), (None, False)]


def test_columns_are_carried_along(ask: Ask, photos: Path, tmp_path: Path) -> None:
    lines = [f'{photos}/{number}.png,"{number}, it is"' for number in (5, 0)]
    (tmp_path / "list.csv").write_text("\n".join(["image,label", *lines]), encoding="utf-8")

    out = embed(ask(data=str(tmp_path / "list.csv"), carry=("label",))).out

    assert [row["label"] for row in rows_of(out)] == ["5, it is", "0, it is"]
    assert [row["path"] for row in rows_of(out)] == [f"{photos}/5.png", f"{photos}/0.png"]
