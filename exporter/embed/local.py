"""The executor on this machine: a process per worker, see `worker_process`."""

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from exporter.embed.parquet import Footer
from exporter.embed.plan import Task
from exporter.embed.schedule import WorkerDied
from exporter.embed.worker import Setup
from exporter.errors import (
    BundleError,
    ExportError,
    InternalError,
    TargetUnavailableError,
    UsageError,
)
from exporter.processes.child import Child, ChildFailure, wait_for_answers
from exporter.records import message_from, to_tree

_COMMAND = (sys.executable, "-m", "exporter.embed.worker_process")

_ERRORS: dict[int, type[ExportError]] = {
    kind.exit_status: kind for kind in (UsageError, TargetUnavailableError, BundleError)
}


@dataclass(frozen=True, kw_only=True)
class LocalExecutor:
    """Processes of this machine; see `Executor`."""

    setup: Setup

    def start(self) -> Child:
        """A new process."""
        child = Child(_COMMAND, {**os.environ, "OMP_NUM_THREADS": str(self.setup.threads)})
        child.send({"ask": "open", "setup": to_tree(self.setup)})
        return child

    def give(self, worker: Child, task: Task) -> None:
        """Send it the rows."""
        worker.send({"ask": "embed", "shard": task.shard, "rows": [row.to_json() for row in task.rows]})

    def wait(self, workers: Collection[Child]) -> Sequence[Child]:
        """Those that have something to read."""
        return wait_for_answers(workers)

    def answer(self, worker: Child) -> Footer | None:
        """What it has written."""
        try:
            answer = worker.answer()
        except ChildFailure as failure:
            if failure.died:
                raise WorkerDied(str(failure)) from failure
            if failure.exit_status in _ERRORS:
                raise _ERRORS[failure.exit_status](str(failure)) from failure
            raise InternalError(f"a process that embeds: {failure}") from failure
        return message_from(Footer, answer) if answer else None

    def stop(self, worker: Child) -> None:
        """Kill it."""
        worker.kill()
