"""Folders beside a bundle that are its writer's alone, and what becomes of them when the writer was killed.

Where it stands on the road: beneath `write`. `.NAME.partial-TOKEN` is a bundle in the making, `.NAME.old-TOKEN` the one
that it is about to replace, `.NAME.bench-TOKEN` scratch space. Whoever makes one holds a lock on it, which the system
lets go of however the process ends; what nobody holds any more, the next run into the same place clears away.
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exporter.interrupts import interrupts_wait

PARTIAL, OLD, BENCH = "partial", "old", "bench"

_SCRATCH = (PARTIAL, BENCH)


@contextmanager
def folder_beside(place: Path, purpose: str) -> Iterator[Path]:
    """A new hidden folder beside a bundle's place, held while the block runs; whoever asks for it removes it.

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


def old_of(partial: Path) -> Path:
    """The name that a bundle takes while another one, which is being made in `partial`, replaces it."""
    stem, _, token = partial.name.rpartition(f".{PARTIAL}-")
    return partial.with_name(f"{stem}.{OLD}-{token}")


def clear_leftovers(place: Path) -> None:
    """Clear away what killed runs left beside a bundle's place; what a running process holds is not touched.

    A bundle that was set aside and never replaced comes back under its name. Where something else has taken that name
    meanwhile, it stays where it is: it is somebody's only copy.
    """
    found = _siblings(place)
    for folder in found[OLD]:
        partial = _partial_of(folder)
        replaced = not partial.exists()
        with _taken(folder if replaced else partial) as free:
            if free and not os.path.lexists(place):
                with suppress(OSError):
                    folder.rename(place)
            elif free and replaced:
                shutil.rmtree(folder, ignore_errors=True)
    for folder in (folder for purpose in _SCRATCH for folder in found[purpose]):
        if old_of(folder).exists():
            continue  # it says that the old bundle was never replaced
        with _taken(folder) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def _made(place: Path, purpose: str) -> tuple[Path, int | None]:
    """A new folder and its lock; once more where another run took it for a leftover before it was locked."""
    while True:
        folder = place.with_name(f".{place.name}.{purpose}-{secrets.token_hex(4)}")
        folder.mkdir()
        lock = _lock(folder)
        if folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


@contextmanager
def _taken(folder: Path) -> Iterator[bool]:
    """Whether nobody else holds a folder, which is held for the time of the block then."""
    lock = _lock(folder)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A lock on a folder; None where another process has it, or the file system has no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _siblings(place: Path) -> dict[str, list[Path]]:
    """The hidden folders beside a place that bear its name, by purpose."""
    pattern = re.compile(rf"\.{re.escape(place.name)}\.({PARTIAL}|{OLD}|{BENCH})-[0-9a-f]{{8}}")
    found: dict[str, list[Path]] = {PARTIAL: [], OLD: [], BENCH: []}
    with suppress(OSError, ValueError):
        for path in sorted(place.parent.iterdir()):
            if named := pattern.fullmatch(path.name):
                found[named[1]].append(path)
    return found


def _partial_of(old: Path) -> Path:
    stem, _, token = old.name.rpartition(f".{OLD}-")
    return old.with_name(f"{stem}.{PARTIAL}-{token}")
