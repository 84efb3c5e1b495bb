"""Give shards to workers, wherever these run: a worker that dies is replaced, and its shard goes to another one."""

from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from exporter.embed.parquet import Footer
from exporter.embed.plan import Task
from exporter.errors import BundleError, ExportError, InternalError, TargetUnavailableError, UsageError
from exporter.records import message_from

_FAILED_STARTS = 3
"""Workers in a row that may die before they have opened the bundle."""


_ERRORS: dict[int, type[ExportError]] = {
    kind.exit_status: kind for kind in (UsageError, TargetUnavailableError, BundleError)
}


class WorkerDied(Exception):
    """A worker is gone without an answer; the text says how."""


W = TypeVar("W")


class Executor(Protocol[W]):
    """Where workers run. Of each, one answer is awaited at a time: that it is open, then a footer per shard."""

    def start(self) -> W:
        """A new worker, which opens the bundle."""
        ...

    def give(self, worker: W, task: Task) -> None:
        """Have it embed a shard."""
        ...

    def wait(self, workers: Collection[W]) -> Sequence[W]:
        """Those of some workers that have answered or died; waits until there is one."""
        ...

    def answer(self, worker: W) -> Footer | None:
        """Its answer: a shard's footer, or None when it has opened the bundle.

        Raises:
            WorkerDied: it is gone.
            ExportError: it cannot go on.
        """
        ...

    def stop(self, worker: W) -> None:
        """End it, if it has not ended."""
        ...


def embed_with(executor: Executor[W], tasks: Iterator[Task], workers: int) -> Generator[Footer]:
    """Yield the footer of each shard as it is written. Close the iterator (`contextlib.closing`) to stop all workers.

    Args:
        executor: where workers run.
        tasks: the shards; the next one is taken when a worker is free.
        workers: at once.

    Raises:
        ExportError: a worker cannot open the bundle, or cannot write.
        TargetUnavailableError: one worker after another dies while it opens the bundle.
    """
    again, idle = deque[Task](), list[W]()
    busy: dict[W, Task | None] = {executor.start(): None for _ in range(workers)}
    failed_starts = 0
    try:
        while True:
            while idle and (task := again.popleft() if again else next(tasks, None)):
                busy[idle[-1]] = task
                executor.give(idle.pop(), task)
            if idle and not any(busy.values()):
                return
            for worker in executor.wait(busy.keys()):
                task = busy[worker]
                try:
                    footer = executor.answer(worker)
                except WorkerDied as death:
                    failed_starts += task is None
                    if failed_starts == _FAILED_STARTS:
                        raise TargetUnavailableError(f"the engine cannot be opened: {death}") from death
                    executor.stop(worker)
                    del busy[worker]
                    busy[executor.start()] = None
                    again.extend(() if task is None else (task,))
                    continue
                failed_starts = 0
                del busy[worker]
                idle.append(worker)
                if footer is not None:
                    yield footer
    finally:
        for worker in {*idle, *busy}:
            executor.stop(worker)


def rows_request(task: Task) -> dict[str, Any]:
    """What a worker is asked, as JSON values."""
    return {"ask": "embed", "shard": task.shard, "rows": [row.to_json() for row in task.rows]}


def footer_of(answer: Mapping[str, Any]) -> Footer | None:
    """A worker's answer: a shard's footer, or None when it has opened the bundle.

    Raises:
        ExportError, InternalError: it is an error.
    """
    if "error" in answer:
        raise failed(str(answer["error"]), answer["exit_status"])
    return message_from(Footer, answer) if answer else None


def failed(message: str, exit_status: int) -> Exception:
    """The error that a worker ended with, as this process raises it."""
    kind = _ERRORS.get(exit_status)
    return InternalError(f"a worker: {message}") if kind is None else kind(message)
