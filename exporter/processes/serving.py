"""Child side: answer requests from stdin, one JSON object a line, and end with the parent.

Libraries print to stdout, some from native code. So the real stdout is kept for answers, and whatever is printed goes
to stderr.
"""

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue
from typing import Any

from exporter.errors import ExportError, InternalError
from exporter.processes.child import kill_children

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_CHUNK_BYTES = 1 << 16
_LONGEST_REASON = 300


def serve(answer: Answer) -> None:
    """Answer requests until one fails; its error is the last answer.

    A thread reads the requests. When the parent closes its end or dies, however it dies, the thread kills whatever
    this process started, and ends this process.

    Args:
        answer: from a request to its answer, both JSON values; what it raises is sent as `error` with `exit_status`
            and `details`, and nothing is answered after it.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.fileno(), requests), daemon=True).start()
    failed = False
    while not failed:
        line, failed = _attempt(answer, requests.get())
        answers.write(line + "\n")
        answers.flush()


def reason(error: BaseException) -> str:
    """An error in one line: the text of an ExportError, the type and the text of any other."""
    if isinstance(error, ExportError):
        return str(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_LONGEST_REASON] if text else type(error).__name__


def failure(error: Exception) -> dict[str, Any]:
    """An error as an answer; call it while the error is handled."""
    status = error.exit_status if isinstance(error, ExportError) else InternalError.exit_status
    return {"error": reason(error), "exit_status": int(status), "details": traceback.format_exc()}


def _attempt(answer: Answer, request: Mapping[str, Any]) -> tuple[str, bool]:
    """The answer as JSON, and whether it is an error."""
    try:
        return json.dumps(answer(request), allow_nan=False), False
    except Exception as error:  # an engine's or a compiler's own: no common type
        return json.dumps(failure(error)), True


def _read(descriptor: int, requests: "SimpleQueue[Mapping[str, Any]]") -> None:
    for line in _lines(descriptor):
        requests.put(json.loads(line))
    kill_children(os.getpid())
    os._exit(1)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Lines until the end. Not through `sys.stdin`, whose lock a process cannot end without."""
    unread = b""
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        *lines, unread = (unread + chunk).split(b"\n")
        yield from lines
