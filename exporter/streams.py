"""Standard output and error of a command: closed, full, or read by someone who has gone.

Stands beside the road: `__main__` puts these streams in place before anything is printed.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from exporter.errors import UsageError

EXIT_READER_GONE = 141
"""128 + SIGPIPE: what a shell reports of a program whose reader has gone."""


class OutputLost(BaseException):
    """What a command says can no longer be written; its `exit_status` is the command's.

    No `Exception`, so that no stage takes it for a failure of its own.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"stdout: cannot be written: {error.strerror}; free some space, or send it elsewhere"
        )
        self.quiet = error.errno == errno.EPIPE
        self.exit_status = EXIT_READER_GONE if self.quiet else UsageError.exit_status


def guard_streams() -> None:
    """Replace standard output and error by streams that end a command in one way, whatever happens to them.

    A closed one is as /dev/null: otherwise the next file that is opened would take its place, and be printed into.
    Text that a stream cannot encode is escaped. Standard error that is full or unread is no reason to stop a build; of
    standard output, `OutputLost` tells.
    """
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    sys.stdout = _stream(sys.stdout, _Stdout(1, "wb", closefd=False))
    sys.stderr = _stream(sys.stderr, _Stderr(2, "wb", closefd=False))


class _Stdout(io.FileIO):
    def write(self, data: Any) -> int:
        return _written(self, super().write, data, lost=True)


class _Stderr(io.FileIO):
    def write(self, data: Any) -> int:
        return _written(self, super().write, data, lost=False)


def _written(file: io.FileIO, write: Callable[[Any], int | None], data: Any, *, lost: bool) -> int:
    """Write; after a failure everything goes to /dev/null, which the interpreter's own last flush then writes to."""
    try:
        return write(data) or 0
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)
        if lost:
            raise OutputLost(error) from error
        return len(data)


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)  # opening gives the lowest number: this one


def _stream(before: TextIO | None, raw: io.FileIO) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=getattr(before, "line_buffering", False),
        write_through=getattr(before, "write_through", False),
    )
