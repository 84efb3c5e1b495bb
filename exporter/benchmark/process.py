"""The race's end of a worker: start it, ask it, and be rid of it.

Every worker leads a process group of its own, so that Ctrl-C reaches the race alone, and killing it takes along
whatever it started (a C++ compiler, say).
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import exporter

WORKER = (sys.executable, "-m", "exporter.benchmark.worker")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_CHUNK_BYTES = 1 << 16
_STDERR_BYTES = 4096


class WorkerFailure(Exception):
    """A worker refused, died, hung or spoke nonsense. Its message is the reason that a report prints."""


def worker_environment(threads: int, work: Path) -> dict[str, str]:
    """Environment variables of a worker: pinned thread counts, and every cache below `work`.

    Args:
        threads: for every numeric library.
        work: an existing folder.
    """
    caches = {
        "TORCHINDUCTOR_CACHE_DIR": work / "inductor",
        "TRITON_CACHE_DIR": work / "triton",
        "TMPDIR": work / "tmp",
    }
    for folder in caches.values():
        folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(
        part for part in (str(Path(exporter.__file__).parents[1]), os.environ.get("PYTHONPATH")) if part
    )
    return {
        **os.environ,
        **{name: str(threads) for name in _THREAD_VARIABLES},
        **{name: str(folder.absolute()) for name, folder in caches.items()},
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # compile in the worker itself: no pool is left behind
        "PYTHONPATH": path,
    }


class WorkerProcess:
    """A running worker."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start it.

        Args:
            command: that runs the worker.
            environment: its environment variables, all of them.
            log: where its stderr goes.
        """
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self._unread = b""

    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Send a request, and wait for its answer.

        Raises:
            WorkerFailure: there was none in time, none at all, none that is JSON, or it says that it failed.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead: reading says why
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        line = self._read_line(time.monotonic() + timeout_s, f'"{request["ask"]}" within {timeout_s:g} s')
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise WorkerFailure(f"expected one JSON object per line, got {line[:80]!r}")
        if "error" in answer:
            raise WorkerFailure(str(answer["error"]))
        return answer

    def kill(self) -> None:
        """End it and everything that it started, now. Does nothing where that is done already."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _read_line(self, deadline: float, what: str) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise WorkerFailure(f"no answer to {what}; allow it more time, or leave it out")
                chunk = os.read(descriptor, _CHUNK_BYTES)
                if not chunk:
                    raise WorkerFailure(self._death())
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _death(self) -> str:
        status = self._process.wait()
        how = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        hint = " (out of memory?)" if status == -signal.SIGKILL else ""
        last = self._last_words()
        return f"its process {how}{hint}" + (f": {last}" if last else "")

    def _last_words(self) -> str:
        text = self._log.read_bytes()[-_STDERR_BYTES:].decode("utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
