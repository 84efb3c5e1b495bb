"""The executor on this machine: a process per worker, see `worker_process`."""

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from exporter.embed.parquet import Footer
from exporter.embed.plan import Task
from exporter.embed.schedule import WorkerDied, failed, footer_of, rows_request
from exporter.embed.worker import Setup
from exporter.processes.child import Child, ChildFailure, wait_for_answers
from exporter.records import to_tree

_COMMAND = (sys.executable, "-m", "exporter.embed.worker_process")


@dataclass(frozen=True, kw_only=True)
class LocalExecutor:
    """Processes of this machine; see `Executor`."""

    setup: Setup

    def start(self) -> Child:
        """A new process."""
        child = Child(_COMMAND, {"OMP_NUM_THREADS": str(self.setup.threads), **os.environ})
        child.send({"ask": "open", "setup": to_tree(self.setup)})
        return child

    def give(self, worker: Child, task: Task) -> None:
        """Send it the rows."""
        worker.send(rows_request(task))

    def wait(self, workers: Collection[Child]) -> Sequence[Child]:
        """Those that have something to read."""
        return wait_for_answers(workers)

    def answer(self, worker: Child) -> Footer | None:
        """What it has written."""
        try:
            return footer_of(worker.answer())
        except ChildFailure as failure:
            if failure.died:
                raise WorkerDied(str(failure)) from failure
            raise failed(str(failure), failure.exit_status) from failure

    def stop(self, worker: Child) -> None:
        """Kill it."""
        worker.kill()
