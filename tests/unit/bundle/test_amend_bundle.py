"""Measurements join a bundle that is already there; whatever stops them leaves it as it was."""

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.bundle import MANIFEST_FILE, Bundle, amend, check_amendable, load_bundle, seal, stage_bundle
from exporter.bundle.locks import place_locked, wait_for_writer
from exporter.errors import InternalError, UsageError

SampleBundle = Callable[[Path], Path]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_an_amended_bundle_holds_the_new_file_and_every_old_one(
    tmp_path: Path, write_bundle: SampleBundle
) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "b"))
    before = bytes_of(bundle.path)

    amend(bundle, {"bench.json": b"{}\n"})

    after = bytes_of(bundle.path)
    assert after.keys() - before.keys() == {"bench.json"}
    assert {name: after[name] for name in before if name != MANIFEST_FILE} == {
        name: content for name, content in before.items() if name != MANIFEST_FILE
    }
    assert load_bundle(bundle.path).manifest.artifacts == bundle.manifest.artifacts
    assert os.listdir(tmp_path) == ["b"]


def test_a_newer_file_of_the_same_name_replaces_the_older_one(
    tmp_path: Path, write_bundle: SampleBundle
) -> None:
    bundle = amend(load_bundle(write_bundle(tmp_path / "b")), {"bench.json": b"old"})

    amend(bundle, {"bench.json": b"new"})

    assert (load_bundle(bundle.path).path / "bench.json").read_bytes() == b"new"


@pytest.mark.parametrize("name", [MANIFEST_FILE, "model.onnx"])
def test_engines_and_manifest_cannot_be_amended(
    tmp_path: Path, write_bundle: SampleBundle, name: str
) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "b"))

    with pytest.raises(InternalError, match=name):
        amend(bundle, {name: b"other"})


def test_part_of_another_bundle_is_not_amended(tmp_path: Path, write_bundle: SampleBundle) -> None:
    """Its new file would not be in the manifest of the bundle around it."""
    outer = write_bundle(tmp_path / "outer")
    inner = load_bundle(write_bundle(tmp_path / "inner"))
    inner.path.rename(outer / "text")

    with pytest.raises(UsageError, match=r"part of the bundle .*outer"):
        check_amendable(load_bundle(outer / "text"))


@pytest.mark.parametrize("place", [".", "below"])
def test_bundle_that_the_shell_stands_in_is_not_replaced(
    tmp_path: Path, write_bundle: SampleBundle, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "b"))
    (bundle.path / "below").mkdir()
    monkeypatch.chdir(bundle.path / place)

    with pytest.raises(UsageError, match="one folder up"):
        check_amendable(bundle)


def test_an_interrupted_amendment_leaves_the_bundle_as_it_was(
    tmp_path: Path, write_bundle: SampleBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "b"))
    before = bytes_of(bundle.path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        amend(bundle, {"bench.json": b"{}\n"})

    assert bytes_of(bundle.path) == before
    assert os.listdir(tmp_path) == ["b"]


def test_a_bundle_in_a_folder_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, write_bundle: SampleBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "b"))
    monkeypatch.setattr("os.access", lambda *_: False)

    with pytest.raises(UsageError, match="not writable; give --no-save"):
        check_amendable(bundle)


# Several commands at once --------------------------------------------------------------------------------


def exported_again(bundle: Bundle, content: dict[str, bytes]) -> None:
    """As `export --force` replaces it."""
    with stage_bundle(bundle.path, force=True) as staging:
        for file in bundle.manifest.files:
            (staging / file).parent.mkdir(exist_ok=True)
            (staging / file).write_bytes(content[file])
        seal(staging, bundle.manifest)


def test_two_commands_that_add_to_a_bundle_keep_what_the_other_one_added(bundle_path: Path) -> None:
    one, other = load_bundle(bundle_path), load_bundle(bundle_path)
    amend(one, {"validation.json": b"{}\n", "report.md": b"old"})

    amend(other, {"report.md": b"new"})

    assert load_bundle(bundle_path).manifest.files.keys() >= {"validation.json", "report.md"}
    assert (bundle_path / "report.md").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["model.onnx", "openvino/model.bin", "recipe.yaml"])
def test_bundle_that_was_exported_again_meanwhile_is_not_added_to(bundle_path: Path, name: str) -> None:
    bundle = load_bundle(bundle_path)
    exported_again(bundle, bytes_of(bundle_path) | {name: b"another"})
    before = bytes_of(bundle_path)

    with pytest.raises(UsageError, match="was replaced by another command; run it again"):
        amend(bundle, {"bench.json": b"{}\n"})

    assert bytes_of(bundle_path) == before
    load_bundle(bundle_path)


def test_bundle_that_is_replaced_while_it_is_opened_is_opened_as_it_is_then(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(bundle_path)

    def replaced_first(*_: object) -> bool:
        monkeypatch.undo()
        exported_again(bundle, bytes_of(bundle_path) | {"recipe.yaml": b"another"})
        return False

    monkeypatch.setattr(
        "exporter.bundle.load._is_missing", lambda _, name: name != MANIFEST_FILE and replaced_first()
    )

    assert load_bundle(bundle_path).manifest.files != bundle.manifest.files


def test_two_runs_into_one_place_keep_the_users_files(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one takes along what lies there between the two renames of the first."""
    (bundle_path / "README.md").write_text("mine")
    bundle = load_bundle(bundle_path)
    rename = Path.rename
    content = bytes_of(bundle_path)
    second = threading.Thread(target=exported_again, args=(bundle, content))

    def slow(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        if threading.current_thread() is not second and ".old-" in target.name and not second.ident:
            second.start()
            second.join(0.5)
        return renamed

    monkeypatch.setattr(Path, "rename", slow)
    exported_again(bundle, content)
    second.join()

    assert (bundle_path / "README.md").read_text() == "mine"
    assert os.listdir(bundle_path.parent) == ["bundle"]


def test_place_is_locked_against_other_processes_until_the_end(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with place_locked(place), place_locked(place):
        descriptor = os.open(tmp_path / ".out.lock", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        wait_for_writer(place)
    assert os.listdir(tmp_path) == []


def test_bundle_is_added_to_where_there_are_no_locks(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    amend(load_bundle(bundle_path), {"bench.json": b"{}\n"})

    assert os.listdir(bundle_path.parent) == ["bundle"]
    assert "bench.json" in load_bundle(bundle_path).manifest.files
