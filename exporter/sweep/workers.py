"""Worker processes that build one point after another, each of them alone in its process.

Beneath `drive`, which decides what is built. A worker that dies (out of memory, for example) fails the point that it
had and no other one.
"""

import os
import traceback
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.errors import ExportError, InternalError
from exporter.machine import usable_cores
from exporter.processes.child import Child, ChildFailure, wait_for_answers
from exporter.processes.collection import collect_less_often
from exporter.processes.serving import reason, serve
from exporter.records import message_from, to_tree
from exporter.sweep.grid import Point
from exporter.sweep.record import Built, Timed


@dataclass(frozen=True, kw_only=True)
class Builder:
    """How to build points in processes of their own.

    Attributes:
        command: runs a worker, which calls `serve_builds`.
        setup: JSON values that every request carries, beside the point.
    """

    command: tuple[str, ...]
    setup: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one stage of a point.

    Attributes:
        value: of the stage; None if it failed.
        error: one line, None if it did not fail.
        exit_status: that a command with this error ends with, 0 if it did not fail.
        details: the traceback.
    """

    value: Built | Timed | None = None
    error: str | None = None
    exit_status: int = 0
    details: str = ""


def attempt(call: Callable[[Point], Timed], point: Point) -> Outcome:
    """Call, and turn every exception but an interrupt into an outcome."""
    try:
        return Outcome(value=call(point))
    except Exception as error:
        status = error.exit_status if isinstance(error, ExportError) else InternalError.exit_status
        return Outcome(error=reason(error), exit_status=status, details=traceback.format_exc())


def serve_builds(build: Callable[[Mapping[str, Any], Point], Built]) -> None:
    """Child side: answer a sweep's requests.

    Args:
        build: from a builder's setup and a point to what was built. What it prints on stdout goes to stderr.
    """
    collect_less_often()
    serve(lambda request: to_tree(build(request["setup"], message_from(Point, request["point"]))))


def outcomes(
    builder: Builder, points: Sequence[Point], jobs: int, on_start: Callable[[Point], None]
) -> Generator[tuple[Point, Outcome], None, None]:
    """Build in up to `jobs` processes at once, and yield each point with its outcome as soon as there is one.

    Close the iterator (`contextlib.closing`) to stop the workers: they and all processes that they started are killed.

    Args:
        builder: how.
        points: taken in this order.
        jobs: processes at once.
        on_start: called before a point goes to a worker.
    """
    waiting = deque(points)
    idle: list[Child] = []
    busy: dict[Child, Point] = {}
    environment = _environment(max(1, min(jobs, len(waiting))))
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                point = waiting.popleft()
                on_start(point)
                child = idle.pop() if idle else Child(builder.command, environment)
                busy[child] = point
                child.send({"ask": "build", "setup": builder.setup, "point": to_tree(point)})
            for child in wait_for_answers(busy):
                outcome = _outcome(child)
                if outcome.error is None:
                    idle.append(child)
                else:
                    child.kill()
                yield busy.pop(child), outcome
    finally:
        for child in [*idle, *busy]:
            child.kill()


def _outcome(child: Child) -> Outcome:
    try:
        return Outcome(value=message_from(Built, child.answer()))
    except ChildFailure as failure:
        return Outcome(error=str(failure), exit_status=failure.exit_status, details=failure.details)


def _environment(workers: int) -> dict[str, str]:
    """Environment variables of each worker; threads are shared out, unless the user has set how many."""
    threads = max(1, len(usable_cores()) // workers)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}
