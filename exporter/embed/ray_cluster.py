"""The executor on Ray: an actor per worker. The one place where Ray is imported.

Actors are called directly, and not through Ray Data: rows are then read while shards are embedded, instead of all
before, and what happens to a shard whose worker dies is the same as on one machine.
"""

import importlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.bundle import MANIFEST_FILE, read_manifest
from exporter.embed.parquet import Footer
from exporter.embed.plan import Task
from exporter.embed.schedule import WorkerDied, footer_of, rows_request
from exporter.embed.worker import Requests, Setup
from exporter.errors import BundleError, TargetUnavailableError, UsageError, library_failures, quoted
from exporter.machine import usable_cores
from exporter.processes.serving import failure
from exporter.records import to_tree
from exporter.version import __version__

_PATIENCE_S = 30.0
_LOOPBACK = ("127.", "localhost:", "[::1]:")

_NOT_CREATED = "creation task"
"""Says Ray of an actor whose class could not be made; that of `Actor` needs no more than this module."""

# gRPC, which Ray speaks, is HTTP/2: both sides begin with a frame of settings, here with none (RFC 9113, 3.4 and 4.1).
_HTTP2_FRAME = 9
_HTTP2_SETTINGS = b"\x04"
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _HTTP2_SETTINGS + b"\0" * 5

Files = Mapping[str, Any]
"""By name, files in Ray's object store."""


class Actor:
    """What Ray runs: a worker that answers requests, an error as an answer of its own."""

    def __init__(self, files: Files) -> None:
        """Take the files of the bundle, which are fetched only if it does not lie on this machine."""
        self._answer, self._files = Requests(), files

    def open(self, setup: Mapping[str, Any]) -> Mapping[str, Any]:
        """Open the bundle; its files are needed no longer once its engine is loaded."""
        with ExitStack() as stack:
            if self._files and not _lies_at(Path(setup["bundle"]), setup["plan"]["digest"]):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="exporter-bundle-"))
                _fetch(self._files, Path(folder))
                setup = {**setup, "bundle": folder}
            return self.ask({"ask": "open", "setup": setup})

    def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to a request; see `Requests`."""
        try:
            return self._answer(request)
        except Exception as error:  # an engine's own: no common type
            return failure(error)


@dataclass(eq=False, kw_only=True)
class RayWorker:
    """An actor and its answer to come."""

    actor: Any
    answer: Any


class RayExecutor:
    """Actors of a cluster; see `Executor`. They are not restarted by Ray, but replaced by the caller."""

    def __init__(self, ray: Any, setup: Setup, gpus: float, *, elsewhere: bool) -> None:
        """Prepare actors.

        Args:
            ray: the module, connected.
            setup: of every worker.
            gpus: that Ray keeps for each worker, and one core with them.
            elsewhere: whether workers may be on other machines, which the bundle's files are sent to.
        """
        self._ray, self._setup = ray, to_tree(setup)
        self._files = _stored(ray, Path(setup.bundle)) if elsewhere else {}
        self._actors = ray.remote(Actor).options(num_cpus=1 if gpus else setup.threads, num_gpus=gpus)

    def start(self) -> RayWorker:
        """A new actor."""
        actor = self._actors.remote(self._files)
        return RayWorker(actor=actor, answer=actor.open.remote(self._setup))

    def give(self, worker: RayWorker, task: Task) -> None:
        """Send it the rows."""
        worker.answer = worker.actor.ask.remote(rows_request(task))

    def wait(self, workers: Collection[RayWorker]) -> Sequence[RayWorker]:
        """Those whose answer is there."""
        ready, _ = self._ray.wait([worker.answer for worker in workers], num_returns=1)
        return [worker for worker in workers if worker.answer in ready]

    def answer(self, worker: RayWorker) -> Footer | None:
        """What it has written."""
        try:
            return footer_of(self._ray.get(worker.answer))
        except self._ray.exceptions.RayError as death:  # of an actor, its machine, or the answer on its way
            first, *_, last = str(death).strip().splitlines() * 2
            if _NOT_CREATED in first:
                raise UsageError(
                    f"on: the machines of Ray need exporter {__version__} with its extra ray ({last.strip()})"
                ) from death
            raise WorkerDied(first) from death

    def stop(self, worker: RayWorker) -> None:
        """Kill it."""
        self._ray.kill(worker.actor)


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to a cluster, or to one that is started for it on this machine alone.

    Ray's statistics of use and its dashboard are off. What is started here ends here, and its files go with it.

    Args:
        address: HOST:PORT; None for this machine.

    Raises:
        TargetUnavailableError: Ray is not installed.
        UsageError: nothing answers there.
    """
    with ExitStack() as stack:
        stack.enter_context(_variables(address))
        try:
            ray = importlib.import_module("ray")
        except ImportError as error:
            raise TargetUnavailableError(
                f'embed: {error}; install it with: pip install "exporter[ray]"'
            ) from error
        where: dict[str, Any] = {"address": address}
        if address is not None:
            _reach(address)
        else:
            folder = tempfile.mkdtemp(prefix="exporter-ray-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            cores = len(usable_cores())
            where = {"address": "local", "num_cpus": cores, "include_dashboard": False, "_temp_dir": folder}
        stack.callback(ray.shutdown)
        what = f"on: Ray at {address or 'this machine'}"
        way_out = "check the address, and where Ray asks for a token, set RAY_AUTH_MODE=token"
        with library_failures(UsageError, what, way_out), _same_handler():
            ray.init(log_to_driver=False, logging_level="ERROR", **where)
        yield ray


@contextmanager
def _variables(address: str | None) -> Iterator[None]:
    """What Ray reads from the environment; what the user has set stays."""
    given = {"RAY_USAGE_STATS_ENABLED": "0"}
    if address is None or address.startswith(_LOOPBACK):
        # Without it, Ray listens on the network, and replaces a loopback address by that of the network.
        given["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if address is None and "RAY_AUTH_MODE" not in os.environ:
        # Without a token of this run, Ray would write one into the home folder, which later clusters would ask for.
        given |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}
    added = {name: value for name, value in given.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _same_handler() -> Iterator[None]:
    """Leave what SIGTERM does as it is: `ray.init` replaces it in the main thread."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if signal.getsignal(signal.SIGTERM) is not before:
        signal.signal(signal.SIGTERM, before)


def _reach(address: str) -> None:
    """Whether a server of Ray's protocol answers at an address; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"on: expected ray=HOST:PORT, got ray={quoted(address)}")
    try:
        with socket.create_connection((host, int(port)), timeout=_PATIENCE_S) as connection:
            if not os.environ.get("RAY_USE_TLS"):
                connection.sendall(_HTTP2_HELLO)
                if connection.recv(_HTTP2_FRAME)[3:4] != _HTTP2_SETTINGS:
                    raise OSError("what answers is not Ray")
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(
            f"on: Ray does not answer at {quoted(address)} within {_PATIENCE_S:g} s ({why}); start it there, or "
            "check the address"
        ) from error


def _lies_at(path: Path, digest: str) -> bool:
    """Whether a bundle lies at a path of this machine."""
    try:
        return read_manifest(path).digest == digest
    except BundleError:
        return False


def _stored(ray: Any, bundle: Path) -> Files:
    """The files of a bundle, put into Ray's object store."""
    names = (MANIFEST_FILE, *read_manifest(bundle).files)
    return {name: ray.put(np.fromfile(bundle / name, dtype=np.uint8)) for name in names}


def _fetch(files: Files, folder: Path) -> None:
    """Write files of Ray's object store into a folder; who opens the bundle checks them."""
    ray: Any = importlib.import_module("ray")
    for name, stored in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        ray.get(stored).tofile(folder / name)
