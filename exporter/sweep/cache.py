"""Finished stages on the disk, found again by what decides their results.

Between `drive` and the sweep's folder. A result is `points/<key>.<stage>.json`, where the key is the hash of everything
that the result depends on: change one of them, and it is another key. A file is used only if it holds what its key was
made of and the hash of its own result fits; anything else there is computed again, with a line that says so.
"""

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from exporter.errors import BundleError, UsageError
from exporter.records import canonical_json, parse_json, record_from, write_whole
from exporter.sweep.grid import Point
from exporter.sweep.record import SCHEMA_VERSION, Built, Timed

POINTS_FOLDER = "points"
LOCK_FILE = ".lock"
_REMEDY = "computed again"

Stage = Literal["built", "timed"]
Result = TypeVar("Result", Built, Timed)

_KINDS: Mapping[Stage, type[Built] | type[Timed]] = {"built": Built, "timed": Timed}


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Everything beside the point that decides a result, as plain values.

    Attributes:
        building: decides what is built and how good it is: model request, hash of the weights, fingerprint of the
            images, batch, versions.
        timing: decides how fast that is, beside `building`: machine, threads, rounds.
    """

    building: Mapping[str, object]
    timing: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Found(Generic[Result]):
    """What the store has of a stage.

    Attributes:
        value: the result; None if there is none that can be believed.
        complaint: why what lies there is not believed; None if nothing does, or it is.
    """

    value: Result | None
    complaint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Store:
    """Results under a sweep's folder; `open_store` makes it.

    Attributes:
        folder: the sweep's.
        conditions: that all its results share.
    """

    folder: Path
    conditions: Conditions

    def key(self, point: Point, stage: Stage = "built") -> str:
        """The hash of everything that a stage's result depends on."""
        return hashlib.sha256(canonical_json(self._inputs(point, stage))).hexdigest()

    def path(self, point: Point, stage: Stage) -> Path:
        """Where a stage's result is."""
        return self.folder / POINTS_FOLDER / f"{self.key(point, stage)}.{stage}.json"

    def find(self, point: Point, stage: Stage) -> Found[Any]:
        """Looks a finished stage up, a `Built` or a `Timed`; never raises for what a file holds."""
        path = self.path(point, stage)
        name = f"{path.parent.name}/{path.name[:12]}...{''.join(path.suffixes)}"
        try:
            document = parse_json(path.read_bytes(), name, "JSON", _REMEDY)
            doubt = self._doubt(document, point, stage)
            if doubt is not None:
                return Found(value=None, complaint=f"{name}: {doubt}; {_REMEDY}")
            assert isinstance(document, dict)
            return Found(value=record_from(_KINDS[stage], document["result"], name, _REMEDY))
        except FileNotFoundError:
            return Found(value=None)
        except OSError as error:
            return Found(value=None, complaint=f"{name}: {error.strerror or error}; {_REMEDY}")
        except BundleError as error:
            return Found(value=None, complaint=str(error))

    def keep(self, point: Point, stage: Stage, result: Built | Timed) -> None:
        """Writes a finished stage, whole or not at all.

        Raises:
            UsageError: the folder cannot be written.
        """
        document = {
            "schema_version": SCHEMA_VERSION,
            "inputs": self._inputs(point, stage),
            "result": result,
            "result_sha256": _sha256(result),
        }
        path = self.path(point, stage)
        try:
            write_whole(path, canonical_json(document))
        except OSError as error:
            raise _unwritable(path, error) from None

    def _inputs(self, point: Point, stage: Stage) -> dict[str, object]:
        inputs: dict[str, object] = {
            "stage": stage,
            "point": point,
            "building": dict(self.conditions.building),
        }
        return inputs if stage == "built" else {**inputs, "timing": dict(self.conditions.timing)}

    def _doubt(self, document: object, point: Point, stage: Stage) -> str | None:
        """Why a document does not hold the result of a stage; None if it does."""
        if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
            return f"no result of schema version {SCHEMA_VERSION}"
        if canonical_json(document.get("inputs")) != canonical_json(self._inputs(point, stage)):
            return "belongs to another point or other conditions"
        if document.get("result_sha256") != _sha256(document.get("result")):
            return "was changed after it was written"
        return None


@contextmanager
def open_store(folder: str | Path, conditions: Conditions) -> Iterator[Store]:
    """The store of a sweep's folder, made if need be, and held against other processes while the block runs.

    Raises:
        UsageError: the folder cannot be written, holds something that is no sweep, or another process sweeps there.
    """
    folder = Path(folder)
    try:
        _check_is_sweep(folder)
        (folder / POINTS_FOLDER).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        _lock(descriptor, folder)
        _remove_partial(folder / POINTS_FOLDER)
        yield Store(folder=folder, conditions=conditions)
    finally:
        os.close(descriptor)


def _check_is_sweep(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder for the sweep, got a file; give another --out")
    strange = folder.is_dir() and any(folder.iterdir()) and not (folder / POINTS_FOLDER).is_dir()
    if strange and not (folder / LOCK_FILE).exists():
        raise UsageError(
            f"{folder}: holds files and is not the folder of a sweep (it has no {POINTS_FOLDER}/); "
            "give another --out"
        )


def _lock(descriptor: int, folder: Path) -> None:
    """Takes the lock, which the system frees however this process ends, and writes who holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
        raise UsageError(
            f"{folder}: {holder} is sweeping here; wait for it, stop it, or give another --out"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _remove_partial(folder: Path) -> None:
    """Removes what a killed process was writing; only under the lock."""
    for path in folder.glob(".*.partial-*"):
        path.unlink(missing_ok=True)


def _sha256(tree: object) -> str:
    return hashlib.sha256(canonical_json(tree)).hexdigest()


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: cannot be written: {error.strerror or error}; give another --out")
