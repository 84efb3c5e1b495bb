"""Writing a bundle so that it is there whole or not at all.

The pipeline writes every file into the folder that `stage_bundle` yields and calls `seal` on it; when the block ends,
the folder takes the bundle's name in one rename. After any error before that, the staging folder is removed and what
was at the bundle's place stays. What a killed run leaves is cleared by the next one into the same place (`leftovers`).
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exporter.bundle.extras import carry, extras_to_keep
from exporter.bundle.file_names import MANIFEST_FILE
from exporter.bundle.leftovers import OLD, PARTIAL, TRASH, clear_leftovers, folder_beside, renamed
from exporter.bundle.locks import place_locked
from exporter.bundle.manifest import Manifest, encode, sealed
from exporter.errors import ExportError, InternalError, UsageError
from exporter.processes.interrupts import interrupts_wait

SAMPLE_FILE = "sample.npz"

_CHUNK_BYTES = 1 << 20
_DISK_ERRORS = {
    errno.ENOSPC: "free some space or give another --out",
    errno.EDQUOT: "free some of your quota or give another --out",
    errno.EFBIG: "files may not grow that large here: raise the limit (ulimit -f unlimited)",
}


@contextmanager
def stage_bundle(out_dir: str | Path, force: bool = False) -> Iterator[Path]:
    """A staging folder beside `out_dir`, which becomes `out_dir` when the block ends without an exception.

    Args:
        out_dir: the bundle's folder. Folders above it are made.
        force: replace `out_dir` if it is a bundle or an empty folder; nothing else is ever replaced. What lies in the
            bundle's folder and is not of the bundle stays there.

    Yields:
        The folder to write into.

    Raises:
        UsageError: `out_dir` exists and may not be replaced (found before the block runs, and again after),
            it cannot be written, or the disk is full, also when that is what stopped the block.
    """
    out_dir = place_of(out_dir)
    check_out_dir(out_dir, force)
    made = _make_parents(out_dir)
    staging: Path | None = None
    try:
        with _staging(out_dir) as staging:
            yield staging
            with place_locked(out_dir):
                check_out_dir(out_dir, force)
                _publish(staging, out_dir)
    except BaseException as error:
        with interrupts_wait():
            _discard(staging, made)
        if (number := _disk_error(error)) is not None:
            raise UsageError(
                f"{out_dir}: cannot be written: {os.strerror(number)}; {_DISK_ERRORS[number]}"
            ) from error
        raise


def check_out_dir(out_dir: str | Path, force: bool) -> None:
    """Refuses a bundle folder that may not be written; cheap, for use before any work starts.

    What killed runs left beside it is cleared away, and a bundle that one of them had set aside is back in its place.

    Raises:
        UsageError: `out_dir` is a file or a link, exists without `force`, or is neither a bundle nor empty; the shell
            stands in it and would find itself in a folder that is gone; or it holds files of the user's that cannot be
            taken along.
    """
    out_dir = Path(out_dir)
    check_name(out_dir)
    clear_leftovers(place_of(out_dir))
    try:
        if out_dir.is_symlink():
            raise UsageError(f"{out_dir}: expected a folder, got a symbolic link; give what it points to")
        if not out_dir.exists():
            _check_parent(out_dir)
            return
        if not out_dir.is_dir():
            raise UsageError(f"{out_dir}: expected a folder for the bundle, got a file; give another --out")
        if not force:
            raise UsageError(f"{out_dir}: already exists; give --force to replace it, or another --out")
        extras_to_keep(out_dir)
        if _stands_in(out_dir):
            raise UsageError(f"{out_dir}: cannot be replaced from inside of it; go one folder up")
    except (OSError, ValueError) as error:
        raise _unwritable(out_dir, error) from None


def place_of(out_dir: str | Path) -> Path:
    """The absolute path of a bundle's folder, by the folders that the links on the way to it lead to.

    The folder itself may be a link still. `LINK/../x` lies beside what the link leads to, as for any program.

    Raises:
        UsageError: no folder can have that path.
    """
    path = Path(out_dir)
    try:
        return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    except (OSError, ValueError, RuntimeError) as error:
        raise _unwritable(path, error) from None


def _stands_in(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder.resolve())
    except FileNotFoundError:  # it stands in a folder that is gone already
        return False


def check_name(folder: Path) -> None:
    """Refuses a bundle folder whose path no engine could open.

    Raises:
        UsageError: the path is not text in UTF-8.
    """
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{folder}: expected a path in UTF-8, in which engines name their files, got other bytes; rename the folder"
        ) from None


def _check_parent(out_dir: Path) -> None:
    parent = next(folder for folder in out_dir.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise UsageError(f"{out_dir}: cannot be written: {parent} is a file; give another --out")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{out_dir}: cannot be written: {parent} is not writable; give another --out")


def seal(folder: Path, manifest: Manifest, known: Mapping[str, str] | None = None) -> Manifest:
    """Hashes every file in a folder, and writes its manifest.

    Args:
        folder: the staging folder, complete but for the manifest.
        manifest: what the pipeline knows; hashes are filled in here.
        known: hashes of files that need not be read again, by name.

    Returns:
        The manifest as written.

    Raises:
        InternalError: an artifact is missing, or a file has a name that no bundle may hold.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    hashes = {name: (known or {}).get(name) or sha256_of(folder / name) for name in names}
    manifest = sealed(manifest, hashes)
    (folder / MANIFEST_FILE).write_bytes(encode(manifest))
    return manifest


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sample_file(target: str | None = None) -> str:
    """The name of the sample, or of the one that a target has for itself."""
    return SAMPLE_FILE if target is None else f"sample-{target}.npz"


def write_sample(
    folder: Path, arrays: Mapping[str, npt.NDArray[np.generic]], target: str | None = None
) -> None:
    """Writes `sample.npz`: a real input batch and the eager outputs for it; the same bytes every time.

    Args:
        folder: the staging folder.
        arrays: by the model's own input and output names, inputs first.
        target: that resolves a near-tie in this sample otherwise than eager PyTorch does: the outputs are the eager
            ones along its matches, in a file of its own.

    Raises:
        InternalError: an array holds Python objects, which would be pickled.
    """
    if pickled := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise InternalError(f"the sample's {pickled[0]} holds Python objects")
    np.savez(folder / sample_file(target), **arrays)  # type: ignore[arg-type]


def _make_parents(out_dir: Path) -> list[Path]:
    """Makes the folders above `out_dir`; returns those that are new, innermost first."""
    new: list[Path] = []
    try:
        new = [folder for folder in out_dir.parents if not folder.exists()]
        out_dir.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        _discard(None, new)
        raise _unwritable(out_dir, error) from None
    return new


@contextmanager
def _staging(out_dir: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(folder_beside(out_dir, PARTIAL))
        except (OSError, ValueError) as error:
            raise _unwritable(out_dir, error) from None
        yield folder


def _unwritable(out_dir: Path, error: Exception) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UsageError(f"{out_dir}: cannot be written: {reason}; give another --out")


def _publish(staging: Path, out_dir: Path) -> None:
    """Brings staging to the disk and under the name `out_dir`; what was there survives until then."""
    old, trash = renamed(staging, OLD), renamed(staging, TRASH)
    try:
        _flush(staging)
        if out_dir.exists():
            carry(extras_to_keep(out_dir), out_dir, staging)
        with interrupts_wait():
            if out_dir.exists():
                out_dir.rename(old)
            staging.rename(out_dir)
            with suppress(OSError):
                old.rename(trash)  # it never comes back, whatever becomes of the new one
    except BaseException as error:
        if old.exists() and not out_dir.exists():
            old.rename(out_dir)
        if isinstance(error, OSError):
            raise _unwritable(out_dir, error) from error
        raise
    finally:
        shutil.rmtree(trash, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Forces a folder's files and names to the disk, so that a rename never publishes empty files."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_symlink():  # of a bundle whose files lie elsewhere
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _discard(staging: Path | None, made: list[Path]) -> None:
    """Removes the staging folder, and the folders that were made above it as far as they are empty."""
    if staging is not None:
        shutil.rmtree(staging, ignore_errors=True)
    for folder in made:
        with suppress(OSError):
            folder.rmdir()


def _disk_error(error: BaseException) -> int | None:
    """The disk's error that an exception, or one that it was raised from, is about; native code has its text only."""
    if isinstance(error, ExportError) or not isinstance(error, Exception):
        return None
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return error.errno
    if found := next((number for number in _DISK_ERRORS if os.strerror(number) in str(error)), None):
        return found
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return _disk_error(cause) if cause is not None else None
