"""The executor on Ray: an actor per worker. The one place where Ray is imported.

Actors are called directly, and not through Ray Data: rows are then read while shards are embedded, instead of all
before, and what happens to a shard whose worker dies is the same as on one machine.
"""

import importlib
import os
import signal
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from exporter.embed.parquet import Footer
from exporter.embed.plan import Task
from exporter.embed.schedule import WorkerDied, footer_of, rows_request
from exporter.embed.worker import Requests, Setup
from exporter.errors import TargetUnavailableError, UsageError, library_failures, quoted
from exporter.processes.serving import failure
from exporter.records import to_tree

_PATIENCE_S = 30.0


class Actor:
    """What Ray runs: a worker that answers requests, an error as an answer of its own."""

    def __init__(self) -> None:
        self._answer = Requests()

    def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to a request; see `Requests`."""
        try:
            return self._answer(request)
        except Exception as error:  # an engine's own: no common type
            return failure(error)


class RayWorker:
    """An actor and its answer to come."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.answer: Any = None

    def ask(self, request: Mapping[str, Any]) -> None:
        """Send a request."""
        self.answer = self.actor.ask.remote(request)


class RayExecutor:
    """Actors of a cluster; see `Executor`. They are not restarted by Ray, but replaced by the caller."""

    def __init__(self, ray: Any, setup: Setup, gpus: float) -> None:
        """Prepare actors.

        Args:
            ray: the module, connected.
            setup: of every worker.
            gpus: that Ray keeps for each worker.
        """
        self._ray, self._setup = ray, setup
        self._actors = ray.remote(Actor).options(num_cpus=setup.threads, num_gpus=gpus)

    def start(self) -> RayWorker:
        """A new actor."""
        worker = RayWorker(self._actors.remote())
        worker.ask({"ask": "open", "setup": to_tree(self._setup)})
        return worker

    def give(self, worker: RayWorker, task: Task) -> None:
        """Send it the rows."""
        worker.ask(rows_request(task))

    def wait(self, workers: Collection[RayWorker]) -> Sequence[RayWorker]:
        """Those whose answer is there."""
        ready, _ = self._ray.wait([worker.answer for worker in workers], num_returns=1)
        return [worker for worker in workers if worker.answer in ready]

    def answer(self, worker: RayWorker) -> Footer | None:
        """What it has written."""
        try:
            return footer_of(self._ray.get(worker.answer))
        except self._ray.exceptions.RayActorError as death:
            raise WorkerDied(" ".join(str(death).split())) from death

    def stop(self, worker: RayWorker) -> None:
        """Kill it."""
        self._ray.kill(worker.actor)


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to a cluster, or to one that is started for it on this machine alone.

    Ray's statistics of use and its dashboard are off.

    Args:
        address: HOST:PORT; None for this machine.

    Raises:
        TargetUnavailableError: Ray is not installed.
        UsageError: nothing answers there.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise TargetUnavailableError(
            f'embed: {error}; install it with: pip install "exporter[ray]"'
        ) from error
    if address is not None:
        _reach(address)
    where: dict[str, Any] = {"address": address}
    if address is None:
        where = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    what = f"on: Ray at {address or 'this machine'}"
    with library_failures(UsageError, what, "check the address"), _same_handler():
        ray.init(log_to_driver=False, logging_level="ERROR", **where)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _same_handler() -> Iterator[None]:
    """Leave what SIGTERM does as it is: `ray.init` replaces it in the main thread."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if signal.getsignal(signal.SIGTERM) is not before:
        signal.signal(signal.SIGTERM, before)


def _reach(address: str) -> None:
    """Whether something answers at an address; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"on: expected ray=HOST:PORT, got ray={quoted(address)}")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"on: nothing answers at {quoted(address)} within {_PATIENCE_S:g} s ({reason}); start Ray there, or "
            "check the address"
        ) from error
