"""Temporary folders beside a bundle, and how they are cleared after their process was killed.

`.NAME.partial-TOKEN` is a bundle in the making, `.NAME.old-TOKEN` the one that it is about to replace,
`.NAME.trash-TOKEN` one that has been replaced, `.NAME.bench-TOKEN` scratch space. A process holds a lock on each of its
folders; the next run into the same place removes those without one.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exporter.bundle.locks import lock_folder, place_locked
from exporter.processes.interrupts import interrupts_wait

PARTIAL, OLD, TRASH, BENCH = "partial", "old", "trash", "bench"

_SCRATCH = (PARTIAL, TRASH, BENCH)


@contextmanager
def folder_beside(place: Path, purpose: str) -> Iterator[Path]:
    """A new hidden folder beside a bundle's place, locked while the block runs; the caller removes it.

    Raises:
        OSError: it cannot be made.
    """
    folder, lock = _made(place, purpose)
    try:
        yield folder
    finally:
        if lock is not None:
            os.close(lock)


@contextmanager
def scratch_beside(place: Path, purpose: str) -> Iterator[Path]:
    """The same, removed at the end of the block."""
    with folder_beside(place, purpose) as folder:
        try:
            yield folder
        finally:
            with interrupts_wait():
                shutil.rmtree(folder, ignore_errors=True)


def renamed(folder: Path, purpose: str) -> Path:
    """The name of one of these folders for another purpose, with the same token.

    A bundle is `old` while another one, which is being made in the `partial` folder of that token, replaces it, and
    `trash` once it has been replaced: under that name it is only ever removed.
    """
    stem, _, token = folder.name.rpartition("-")
    return folder.with_name(f"{stem.rpartition('.')[0]}.{purpose}-{token}")


def clear_leftovers(place: Path) -> None:
    """Clear away what killed runs left beside a bundle's place; what a running process holds is not touched.

    A bundle that was set aside and never replaced comes back under its name. If that name is
    taken by now, it stays where it is, since it may be the only copy. One that was replaced never comes back, even if
    its successor is gone.
    """
    if any(_siblings(place).values()):
        with place_locked(place):
            _clear(place, _siblings(place))


def _clear(place: Path, found: dict[str, list[Path]]) -> None:
    for folder in found[OLD]:
        partial = renamed(folder, PARTIAL)
        replaced = not partial.exists()
        with _taken(folder if replaced else partial) as free:
            there = os.path.lexists(place)
            if free and not replaced and not there:
                with suppress(OSError):
                    folder.rename(place)
            elif free and replaced and there:
                shutil.rmtree(folder, ignore_errors=True)
    for folder in (folder for purpose in _SCRATCH for folder in found[purpose]):
        if renamed(folder, OLD).exists():
            continue  # it says that the old bundle was never replaced
        with _taken(folder) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def _made(place: Path, purpose: str) -> tuple[Path, int | None]:
    """A new folder and its lock; another one where a run took it for a leftover before it was locked."""
    while True:
        folder = place.with_name(f".{place.name}.{purpose}-{secrets.token_hex(4)}")
        folder.mkdir()
        try:
            lock = lock_folder(folder)
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError:  # a file system without locks
            return folder, None
        if folder.exists():
            return folder, lock
        os.close(lock)


@contextmanager
def _taken(folder: Path) -> Iterator[bool]:
    """Whether no other process holds a folder; if so, it is held while the block runs."""
    try:
        lock = lock_folder(folder)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(lock)


def _siblings(place: Path) -> dict[str, list[Path]]:
    """The hidden folders beside a place that bear its name, by purpose."""
    pattern = re.compile(rf"\.{re.escape(place.name)}\.({PARTIAL}|{OLD}|{TRASH}|{BENCH})-[0-9a-f]{{8}}")
    found: dict[str, list[Path]] = {PARTIAL: [], OLD: [], TRASH: [], BENCH: []}
    with suppress(OSError, ValueError):
        for path in sorted(place.parent.iterdir()):
            if named := pattern.fullmatch(path.name):
                found[named[1]].append(path)
    return found
