"""Give shards to workers, wherever these run: a worker that dies is replaced, and its shard goes to another one."""

from collections import deque
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Protocol, TypeVar

from exporter.embed.parquet import Footer
from exporter.embed.plan import Task
from exporter.errors import TargetUnavailableError

_FAILED_STARTS = 3
"""Workers in a row that may die before they have opened the bundle."""


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
