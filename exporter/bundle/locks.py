"""Locks on a folder, or on a bundle's place while it is being replaced; the system frees them when a process ends."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ONE_THREAD = threading.RLock()
_own: set[Path] = set()
"""Lock files of the places that this process holds."""


def lock_folder(folder: Path) -> int:
    """Lock a folder; the descriptor that holds the lock until it is closed.

    Raises:
        BlockingIOError: another process has it.
        OSError: it is no folder, or the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs.

    Raises:
        BlockingIOError, OSError: as `lock_folder`.
    """
    descriptor = lock_folder(folder)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def place_locked(place: Path) -> Iterator[None]:
    """Keep other commands from replacing what lies at a bundle's place; waits for one that is about it.

    The lock is an empty file `.NAME.lock` beside the place, removed after the block. A process that holds
    a place may lock it again. Where there can be no lock, the block runs without.
    """
    file = _lock_file(place)
    with _ONE_THREAD:
        if file is None or file in _own:
            yield
            return
        descriptor = _locked_file(file)
        _own.add(file)
        try:
            yield
        finally:
            _own.discard(file)
            if descriptor is not None:
                _release(descriptor, file)


def wait_for_writer(place: Path) -> None:
    """Return when no other command is about to replace what lies at a bundle's place; writes nothing."""
    file = _lock_file(place)
    with _ONE_THREAD, suppress(OSError):
        if file is None or file in _own:
            return
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)


def _lock_file(place: Path) -> Path | None:
    """The lock's file, however the place is spelled; None of a place that no command can replace."""
    parent, name = os.path.split(os.path.abspath(place))
    return Path(parent, f".{name}.lock") if name and "\0" not in name else None


def _locked_file(file: Path) -> int | None:
    """A lock on the file that bears the name now; the process that held it before has removed its own."""
    while True:
        try:
            descriptor = os.open(
                file, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
            )
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_same(descriptor, file):
                return descriptor
        except OSError:
            _release(descriptor, file)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.lstat())
    except FileNotFoundError:
        return False


def _release(descriptor: int, file: Path) -> None:
    """Remove the file while it is locked; one that is not empty is not ours."""
    try:
        with suppress(OSError):
            if os.fstat(descriptor).st_size == 0:
                file.unlink()
    finally:
        os.close(descriptor)
