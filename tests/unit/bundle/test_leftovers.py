"""What killed runs leave beside a bundle is cleared away; what belongs to a running one, or to the user, is not."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.bundle import check_out_dir, load_bundle, stage_bundle
from exporter.bundle.leftovers import OLD, PARTIAL, clear_leftovers, folder_beside, renamed
from exporter.bundle.locks import lock_folder
from exporter.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]


def filled(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights").write_text("x")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def held(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("purpose", ["partial", "bench", "trash"])
def test_folder_of_a_killed_run_goes_with_the_next_run_into_its_place(tmp_path: Path, purpose: str) -> None:
    filled(tmp_path / f".out.{purpose}-12345678" / "deep")

    with stage_bundle(tmp_path / "out") as folder:
        (folder / "a").write_text("x")

    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(".other.partial-12345678", id="of another bundle"),
        pytest.param(".out.partial-12345678-mine", id="almost the name"),
        pytest.param(".out.partial-", id="no token"),
        pytest.param("out.partial-12345678", id="not hidden"),
        pytest.param(".out.validation-123456789abc", id="of a validation that goes on"),
    ],
)
def test_what_is_no_leftover_of_this_place_stays(tmp_path: Path, name: str) -> None:
    filled(tmp_path / name)

    clear_leftovers(tmp_path / "out")

    assert names(tmp_path) == [name]
    assert names(tmp_path / name) == ["weights"]


def test_link_with_the_name_of_a_leftover_is_not_followed(tmp_path: Path) -> None:
    filled(tmp_path / "photos")
    (tmp_path / ".out.partial-12345678").symlink_to(tmp_path / "photos")

    clear_leftovers(tmp_path / "out")

    assert names(tmp_path / "photos") == ["weights"]


def test_folder_of_a_running_process_stays(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom exporter.bundle.leftovers import PARTIAL, folder_beside\n"
        "with folder_beside(Path(sys.argv[1]), PARTIAL) as folder:\n"
        "    (folder / 'a').touch()\n    print(folder.name, flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        clear_leftovers(tmp_path / "out")
        assert names(tmp_path / name) == ["a"]
        other.kill()
        other.wait()

        clear_leftovers(tmp_path / "out")
        assert names(tmp_path) == []


def test_own_folder_stays_while_it_is_held(tmp_path: Path) -> None:
    with folder_beside(tmp_path / "out", PARTIAL) as folder:
        clear_leftovers(tmp_path / "out")
        assert folder.is_dir()


# A bundle that was set aside --------------------------------------------------------------------------


def set_aside(bundle: Path) -> Path:
    """As a process leaves it that is killed between its two renames."""
    partial = filled(bundle.with_name(f".{bundle.name}.partial-12345678"))
    bundle.rename(renamed(partial, OLD))
    return partial


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(clear_leftovers, id="cleared"),
        pytest.param(lambda place: check_out_dir(place, force=True), id="first check of a run"),
        pytest.param(load_bundle, id="opened"),
    ],
)
def test_bundle_that_was_set_aside_comes_back(bundle_path: Path, use: Callable[[Path], object]) -> None:
    set_aside(bundle_path)

    use(bundle_path)

    assert names(bundle_path.parent) == ["bundle"]
    load_bundle(bundle_path)


@pytest.mark.parametrize("use", [load_bundle, lambda place: check_out_dir(place, force=False)])
def test_place_whose_name_no_engine_could_open_is_refused(
    use: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="expected a path in UTF-8"):
        use(tmp_path / os.fsdecode(b"n\xff"))


def test_bundle_that_a_running_process_has_set_aside_stays(bundle_path: Path) -> None:
    partial = set_aside(bundle_path)

    with held(partial):
        clear_leftovers(bundle_path)

    assert names(bundle_path.parent) == [".bundle.old-12345678", ".bundle.partial-12345678"]


def test_bundle_that_was_replaced_before_the_kill_goes(bundle_path: Path) -> None:
    old = filled(bundle_path.with_name(".bundle.old-12345678"))

    clear_leftovers(bundle_path)

    assert not old.exists()
    load_bundle(bundle_path)


def test_bundle_that_was_replaced_does_not_come_back_when_its_successor_is_gone(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if killed before it
        with stage_bundle(bundle_path, force=True) as folder:
            (folder / "new").write_text("x")
    shutil.rmtree(bundle_path)
    assert len(names(bundle_path.parent)) == 1

    check_out_dir(bundle_path, force=False)

    assert names(bundle_path.parent) == []


def test_bundle_that_was_killed_right_after_its_renames_does_not_come_back(bundle_path: Path) -> None:
    bundle_path.rename(bundle_path.with_name(".bundle.old-12345678"))

    clear_leftovers(bundle_path)

    assert not bundle_path.exists()


def test_new_folder_that_another_run_clears_away_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders: list[int] = []

    def taken_at_first(folder: Path) -> int:
        if not holders:
            holders.append(os.open(folder, os.O_RDONLY))
            fcntl.flock(holders[0], fcntl.LOCK_EX)
        return lock_folder(folder)

    monkeypatch.setattr("exporter.bundle.leftovers.lock_folder", taken_at_first)
    with folder_beside(tmp_path / "out", PARTIAL) as folder:
        (taken,) = {path.name for path in tmp_path.iterdir()} - {folder.name}
        assert os.path.samestat(os.fstat(holders[0]), (tmp_path / taken).stat())
        clear_leftovers(tmp_path / "out")
        assert folder.is_dir()
    os.close(holders[0])


def test_bundle_that_was_never_replaced_stays_though_its_name_is_taken(bundle_path: Path) -> None:
    set_aside(bundle_path)
    filled(bundle_path)

    clear_leftovers(bundle_path)

    assert names(bundle_path.parent) == [".bundle.old-12345678", ".bundle.partial-12345678", "bundle"]
    load_bundle(bundle_path.with_name(".bundle.old-12345678"))


def test_interrupted_rename_keeps_one_whole_bundle(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            os.kill(os.getpid(), 2)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt), stage_bundle(bundle_path, force=True) as folder:
        (folder / "new").write_text("x")

    assert names(bundle_path.parent) == ["bundle"]
    assert names(bundle_path) == ["new"]
