"""Worker processes that call one function on one point after another.

Where it stands on the road: beneath `drive`, which decides what is called on what. One pipe per worker, so that a
worker that is killed (out of memory, say) costs the point that it had and no other one. A worker never outlives its
parent, however that one ends.
"""

import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import (
    get_context,
    get_start_method,
    parent_process,
    resource_tracker,
    set_start_method,
)
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import psutil

from exporter.errors import ExportError, InternalError
from exporter.sweep.grid import Point

Call = Callable[[Point], object]

_SPAWN = get_context("spawn")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a call.

    Attributes:
        value: what it returned; None if it failed.
        error: one line, None if it did not fail.
        exit_status: that a command with this error ends with, 0 if it did not fail.
        details: the traceback, for those who ask.
    """

    value: object = None
    error: str | None = None
    exit_status: int = 0
    details: str = ""


def attempt(call: Call, point: Point) -> Outcome:
    """Calls, and turns every exception but an interrupt into an outcome."""
    try:
        return Outcome(value=call(point))
    except ExportError as error:
        return Outcome(error=str(error), exit_status=error.exit_status, details=traceback.format_exc())
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(error=line, exit_status=InternalError.exit_status, details=traceback.format_exc())


def outcomes(
    call: Call, points: Sequence[Point], jobs: int, on_start: Callable[[Point], None]
) -> Generator[tuple[Point, Outcome], None, None]:
    """Calls in up to `jobs` processes at once, and yields each point with its outcome as soon as there is one.

    Close the iterator (`contextlib.closing`) to stop the workers: they and all processes that they started are killed.

    Args:
        call: must be picklable. What it prints on stdout goes to stderr.
        points: taken in this order.
        jobs: processes at once.
        on_start: told before a point goes to a worker.
    """
    waiting = deque(points)
    idle: list[_Worker] = []
    busy: dict[Connection, tuple[_Worker, Point]] = {}
    threads = max(1, cores() // max(1, min(jobs, len(waiting))))
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                point = waiting.popleft()
                on_start(point)
                worker = idle.pop() if idle else _started(call, threads)
                busy[worker.pipe] = (worker, point)
                with suppress(OSError):  # a worker that is already dead is found below
                    worker.pipe.send(point)
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker, point = busy[pipe]
                outcome = worker.outcome()
                del busy[pipe]
                if worker.process.is_alive():
                    idle.append(worker)
                yield point, outcome
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.kill()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection

    def outcome(self) -> Outcome:
        try:
            got = self.pipe.recv()
        except (EOFError, OSError):
            self.kill()
            return _death(self.process.exitcode)
        assert isinstance(got, Outcome)
        return got

    def kill(self) -> None:
        """Kills the worker and whatever it started, and waits until it is gone."""
        with suppress(psutil.NoSuchProcess):
            _kill_children(psutil.Process(self.process.pid))
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _started(call: Call, threads: int) -> _Worker:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(theirs, call, get_start_method()))
    with _interrupts_held_back(), _environment("OMP_NUM_THREADS", str(threads)):
        process.start()
    theirs.close()
    return _Worker(process=process, pipe=ours)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Lets a process that is started inside never see Ctrl-C or a hang-up, which are for its parent to act on."""
    resource_tracker.ensure_running()  # its own start, along with the first process, would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Gives a variable to processes that are started inside, unless the user has set it."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def _serve(pipe: Connection, call: Call, start_method: str) -> None:
    """The worker's life: points in, outcomes out, until nobody sends any more.

    Its own processes start as its parent's do. Left at `spawn`, which its own start set, every image decoder would
    import everything again, and locks of libraries (tqdm's, say) would be files that a killed worker leaves behind.
    """
    set_start_method(start_method, force=True)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            point = pipe.recv()
        except EOFError:
            return
        outcome = attempt(call, point)
        try:
            pipe.send(outcome)
        except BrokenPipeError:
            return
        except Exception as error:  # what cannot be pickled
            pipe.send(attempt(_raise(error), point))


def _raise(error: Exception) -> Call:
    def call(_: Point) -> object:
        raise error

    return call


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    _kill_children(psutil.Process())
    os._exit(1)


def _kill_children(process: psutil.Process) -> None:
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _death(exit_code: int | None) -> Outcome:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return Outcome(
            error=f"its process was killed by {name}; if memory ran out, run fewer jobs at once",
            exit_status=128 - exit_code,
        )
    return Outcome(error=f"its process ended with status {exit_code}", exit_status=InternalError.exit_status)
