"""Measurements join a bundle that is already there; whatever stops them leaves it as it was."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.bundle import MANIFEST_FILE, amend, check_amendable, load_bundle
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


def test_files_are_copied_where_they_cannot_be_linked(
    tmp_path: Path, write_bundle: SampleBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "b"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    amend(bundle, {"bench.json": b"{}\n"})

    assert "bench.json" in load_bundle(bundle.path).manifest.files


def test_a_bundle_in_a_folder_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, write_bundle: SampleBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "b"))
    monkeypatch.setattr("os.access", lambda *_: False)

    with pytest.raises(UsageError, match="not writable; give --no-save"):
        check_amendable(bundle)
