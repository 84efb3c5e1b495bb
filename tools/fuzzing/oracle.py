"""What a command may answer to whatever it is given, and a place to ask it in.

A command ends with a documented status other than 70, says one line about a failure, in bounded time and memory, and
writes nothing outside of the folder that it was given and of the temporary one.
"""

import io
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

DOCUMENTED = frozenset((0, 2, 3, 4, 5, 6, 7, 8))
MOST_SECONDS = 60
MOST_KIBIBYTES = 2 << 20
LONGEST_LINE = 1_100

CASE = "CASE"
"""Stands for the case's folder in the words of a command."""


class TooSlow(BaseException):
    """The command was not done in time; no `Exception`, which a net for libraries would take for a failure."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command ended with."""

    status: int
    err: str
    grown_kib: int
    strays: tuple[str, ...]
    slow: bool = False


def ask(files: Mapping[str, bytes], words: Sequence[str], debug: bool = False) -> Answer:
    """Run one command in this process, in a place of its own.

    Args:
        files: to lie in the case's folder, by relative path.
        words: of the command; `CASE` in them is that folder.
        debug: have it say where it failed.
    """
    with tempfile.TemporaryDirectory() as place, _inside(Path(place)):
        folder = Path(place, "case")
        write(files, folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        given = [word.replace(CASE, str(folder)) for word in words]
        status, err, slow = _run([*given, "--debug"] if debug else given)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        strays = [path for part in ("home", "cwd") for path in Path(place, part).rglob("*")]
        named = tuple(str(path.relative_to(place)) for path in strays)
    return Answer(status=status, err=err, grown_kib=grown, strays=named, slow=slow)


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files by their relative paths."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def complaint(answer: Answer) -> str | None:
    """What is wrong with an answer, in a few words that are the same for the same fault; None for nothing."""
    lines = [line for line in answer.err.splitlines() if line.strip()]
    if answer.slow:
        return "too slow"
    if answer.status not in DOCUMENTED:
        return f"status {answer.status}"
    if "Traceback" in answer.err:
        return "traceback"
    if answer.status and (not lines or not lines[-1].startswith("error: ")):
        return "no line that says what is wrong"
    if any(len(line) > LONGEST_LINE for line in lines):
        return "a line without end"
    if lines and not lines[-1].isprintable():
        return "a line that cannot be printed"
    if answer.grown_kib > MOST_KIBIBYTES:
        return "too much memory"
    return "something written elsewhere" if answer.strays else None


def _run(words: Sequence[str]) -> tuple[int, str, bool]:
    from exporter.cli import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            with _limited(MOST_SECONDS):
                return main(words), err.getvalue(), False
        except TooSlow:
            return 0, err.getvalue(), True


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _inside(place: Path) -> Iterator[None]:
    """Home, working directory and temporary folder are empty ones for the time of the block."""
    for part in ("home", "cwd", "tmp", "case"):
        (place / part).mkdir()
    variables = {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp")}
    before, here, chosen = {name: os.environ.get(name) for name in variables}, Path.cwd(), tempfile.tempdir
    os.environ.update(variables)
    tempfile.tempdir = None
    os.chdir(place / "cwd")
    try:
        yield
    finally:
        os.chdir(here)
        tempfile.tempdir = chosen
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        shutil.rmtree(place / "case", ignore_errors=True)
