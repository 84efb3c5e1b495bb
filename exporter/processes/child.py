"""Parent side of a child process: start, request with a deadline, kill.

Every child leads a process group of its own, so that Ctrl-C reaches the parent alone, and killing it includes whatever
it started (a C++ compiler, for example).
"""

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from exporter.errors import InternalError

_CHUNK_BYTES = 1 << 16
_STDERR_BYTES = 4096


class ChildFailure(Exception):
    """A child refused, died, did not answer in time or sent something that is no answer.

    Attributes:
        exit_status: of a command that fails for this reason.
        details: the child's traceback; empty if it sent none.
        died: whether it ended without an answer.
    """

    def __init__(
        self,
        message: str,
        exit_status: int = InternalError.exit_status,
        details: str = "",
        *,
        died: bool = False,
    ) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.details = details
        self.died = died


class Child:
    """A running child process that answers requests; see `serving.serve`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path | None = None
    ) -> None:
        """Start it.

        Args:
            command: that runs the child.
            environment: its environment variables, all of them but the path to this package, which is added.
            log: file for its stderr, whose last line explains a death; None for this process's stderr.
        """
        self._log = log
        with open(log or os.devnull, "wb") as stderr:
            self._process = subprocess.Popen(
                command,
                env={**environment, "PYTHONPATH": _python_path(environment)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr if log is not None else None,
                start_new_session=True,
            )
        self._unread = b""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            ChildFailure: there was no answer in time, none at all, none that is JSON, or the answer is an error.
        """
        self.send(request)
        return self.answer(timeout_s=timeout_s, to=f'"{request["ask"]}" within {timeout_s:g} s')

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request; `answer` reads what comes back."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead: reading says why
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self, *, timeout_s: float | None = None, to: str = "a request") -> dict[str, Any]:
        """The answer to the request that was sent last; see `ask`. None waits without end."""
        line = self._read_line(None if timeout_s is None else time.monotonic() + timeout_s, to)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ChildFailure(f"expected one JSON object per line, got {line[:80]!r}")
        if "error" in answer:
            raise ChildFailure(
                str(answer["error"]),
                answer.get("exit_status", InternalError.exit_status),
                answer.get("details", ""),
            )
        return answer

    def kill(self) -> None:
        """Kill it and everything that it started. Does nothing to a child that was killed before."""
        if self._process.returncode is None:
            kill_children(self._process.pid)
        with suppress(
            ProcessLookupError, PermissionError
        ):  # of one that died, the group may still have members
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def fileno(self) -> int:
        """The descriptor that answers are read from."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _read_line(self, deadline: float | None, what: str) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self.fileno(), selectors.EVENT_READ)
            while b"\n" not in self._unread:
                left_s = None if deadline is None else max(deadline - time.monotonic(), 0)
                if not selector.select(left_s):
                    raise ChildFailure(f"no answer to {what}; allow it more time, or leave it out")
                chunk = os.read(self.fileno(), _CHUNK_BYTES)
                if not chunk:
                    raise self._death()
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _death(self) -> ChildFailure:
        status = self._process.wait()
        if status < 0:
            how, exit_status = f"was killed by {_signal_name(-status)}", 128 - status
        else:
            how, exit_status = f"ended with status {status}", InternalError.exit_status
        hint = " (out of memory?)" if status == -signal.SIGKILL else ""
        last = self._last_line()
        return ChildFailure(
            f"its process {how}{hint}" + (f": {last}" if last else ""), exit_status, died=True
        )

    def _last_line(self) -> str:
        if self._log is None:
            return ""
        text = self._log.read_bytes()[-_STDERR_BYTES:].decode("utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""


def wait_for_answers(children: Iterable[Child]) -> list[Child]:
    """Wait until some of these children answer or die, and return them."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child, selectors.EVENT_READ, child)
        return [key.data for key, _ in selector.select()]


def kill_children(pid: int) -> None:
    """Kill all processes that a process started, and those that they started."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _python_path(environment: Mapping[str, str]) -> str:
    parts = (str(Path(__file__).resolve().parents[2]), environment.get("PYTHONPATH"))
    return os.pathsep.join(part for part in parts if part)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
