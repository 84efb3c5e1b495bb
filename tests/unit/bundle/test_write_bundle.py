"""A bundle is written whole or not at all, and never over something else."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporter.bundle import check_out_dir, load_bundle, stage_bundle, write_sample
from exporter.errors import InternalError, ParityError, UsageError


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stage_and(act: Callable[[], object], out_dir: Path) -> None:
    with stage_bundle(out_dir) as folder:
        (folder / "a").write_text("x")
        act()


def test_a_finished_block_puts_the_bundle_in_place_and_nothing_else(tmp_path: Path) -> None:
    with stage_bundle(tmp_path / "deep/er/out") as folder:
        (folder / "a").write_text("x")
        assert folder.parent == tmp_path / "deep/er"
        assert folder.name.startswith(".out.partial-")
        assert not (tmp_path / "deep/er/out").exists()
    assert contents(tmp_path) == ["deep", "deep/er", "deep/er/out", "deep/er/out/a"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_bundle_gets_the_permissions_of_an_ordinary_folder(tmp_path: Path) -> None:
    (tmp_path / "ordinary").mkdir()
    with stage_bundle(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(ParityError("wrong numbers"), id="gate"),
        pytest.param(ValueError("bug"), id="bug"),
        pytest.param(KeyboardInterrupt(), id="ctrl-c"),
        pytest.param(SystemExit(1), id="exit"),
    ],
)
def test_a_failing_block_leaves_nothing_behind_and_its_error_alone(
    tmp_path: Path, failure: BaseException
) -> None:
    def fail() -> None:
        raise failure

    with pytest.raises(type(failure)) as caught:
        stage_and(fail, tmp_path / "deep/out")
    assert caught.value is failure
    assert contents(tmp_path) == []


@pytest.mark.parametrize(
    "failure", [ParityError("wrong"), KeyboardInterrupt(), no_space()], ids=["gate", "ctrl-c", "full"]
)
def test_a_failing_forced_write_keeps_the_old_bundle(bundle_path: Path, failure: BaseException) -> None:
    before = contents(bundle_path.parent)
    with pytest.raises((ParityError, KeyboardInterrupt, UsageError)), stage_bundle(bundle_path, force=True):
        raise failure
    assert contents(bundle_path.parent) == before
    load_bundle(bundle_path)


def test_an_existing_folder_is_refused_before_the_block_runs(bundle_path: Path) -> None:
    with pytest.raises(UsageError, match="already exists; give --force"), stage_bundle(bundle_path):
        pytest.fail("the block ran")
    load_bundle(bundle_path)


def test_a_folder_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already exists"):
        stage_and((tmp_path / "out").mkdir, tmp_path / "out")
    assert contents(tmp_path) == ["out"]


def test_force_replaces_a_bundle_and_leaves_only_the_new_one(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (bundle_path, tmp_path / "empty"):
        with stage_bundle(place, force=True) as folder:
            (folder / "new").write_text("x")
        assert contents(place) == ["new"]
    assert sorted(os.listdir(tmp_path)) == ["bundle", "empty"]


def test_force_never_deletes_another_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/me.jpg").write_text("x")
    with (
        pytest.raises(UsageError, match="only a bundle or an empty folder"),
        stage_bundle(tmp_path / "photos", force=True),
    ):
        pytest.fail("the block ran")
    assert contents(tmp_path) == ["photos", "photos/me.jpg"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_and_a_link_are_refused(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="got a file"):
        check_out_dir(tmp_path / "file", force)
    with pytest.raises(UsageError, match="symbolic link"):
        check_out_dir(tmp_path / "link", force)


@pytest.mark.parametrize("name", ["file/out", "file/deep/out", "x" * 300, "nul\0"])
def test_a_place_that_cannot_hold_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"), stage_bundle(tmp_path / name):
        pytest.fail("the block ran")
    assert contents(tmp_path) == ["file"]


def test_a_parent_without_write_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    with (
        pytest.raises(UsageError, match="cannot be written: Permission denied"),
        stage_bundle(tmp_path / "out"),
    ):
        pytest.fail("the block ran")


def raise_wrapped() -> None:
    try:
        raise no_space()
    except OSError as error:
        raise RuntimeError("saving failed") from error


def raise_native() -> None:
    raise RuntimeError("write failed: No space left on device")


def raise_plain() -> None:
    raise no_space()


@pytest.mark.parametrize("write", [raise_plain, raise_wrapped, raise_native])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, write: Callable[[], None]) -> None:
    with pytest.raises(UsageError) as caught:
        stage_and(write, tmp_path / "out")
    assert "out: cannot be written: No space left on device; free some space" in str(caught.value)
    assert caught.value.exit_status == 2
    assert contents(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(errno.ENOSPC, "No space left on device; free some space", id="full"),
        pytest.param(errno.EDQUOT, "free some of your quota", id="quota"),
        pytest.param(errno.EFBIG, "File too large; files may not grow that large here", id="file size limit"),
    ],
)
def test_each_error_of_a_disk_has_its_own_words(tmp_path: Path, number: int, words: str) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(UsageError, match=words):
        stage_and(fail, tmp_path / "out")


@pytest.mark.parametrize("failure", [no_space(), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_a_full_disk_or_interrupt_while_flushing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(descriptor: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((UsageError, KeyboardInterrupt)), stage_bundle(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
    assert contents(tmp_path) == []


@pytest.mark.parametrize(
    "failure", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()], ids=["disk", "ctrl-c"]
)
def test_the_old_bundle_comes_back_when_the_new_one_cannot_be_renamed(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    rename = Path.rename

    def fails_for_the_new_one(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise failure
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises((UsageError, KeyboardInterrupt)), stage_bundle(bundle_path, force=True):
        pass
    assert [path.name for path in bundle_path.parent.iterdir()] == ["bundle"]
    load_bundle(bundle_path)


def test_a_sample_never_pickles(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="images"):
        write_sample(tmp_path, {"images": np.array([object()])})


@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("place", [".", "../bundle", "absolute"])
def test_the_folder_that_the_shell_stands_in_is_refused(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, empty: bool
) -> None:
    if empty:
        shutil.rmtree(bundle_path)
        bundle_path.mkdir()
    monkeypatch.chdir(bundle_path)
    with pytest.raises(UsageError, match="from inside of it; go one folder up"):
        check_out_dir(bundle_path if place == "absolute" else place, force=True)


def test_dots_after_a_link_lead_where_they_lead_any_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/deep")
    monkeypatch.chdir(tmp_path)
    with stage_bundle("link/../out") as folder:
        (folder / "a").write_text("x")
    assert (tmp_path / "link/../out/a").is_file()
    assert contents(tmp_path / "disk") == ["deep", "out", "out/a"]
