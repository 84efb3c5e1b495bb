"""Progress by stage, on stderr."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from exporter.pipeline import Note, Observer, silent


class _Stage:
    """A stage's line: a spinner, and a bar with the time that is left once the stage can be counted."""

    def __init__(self, name: str, bar: Progress) -> None:
        self.outcome: list[str] = []
        self._bar = bar
        self._task = bar.add_task(name, total=None)
        bar.refresh()

    def __call__(self, line: str) -> None:
        self.outcome.append(line)

    def progress(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total, refresh=True)


def observer(console: Console, *, quiet: bool) -> Observer:
    """A line per stage with its time and outcome; a bar while it runs, where stderr is a terminal.

    The bar is drawn when something is told, and not by a clock: a thread that draws would be timed with a benchmark.
    """
    if quiet:
        return silent

    @contextmanager
    def observe(stage: str) -> Iterator[Note]:
        started = time.perf_counter()
        with _bar(console) as bar:
            running = _Stage(stage, bar)
            yield running
        seconds = time.perf_counter() - started
        took = (f"{stage:<18} {seconds:6.1f} s  ", "dim")
        line = Text.assemble(("✓ ", "green"), took, " ".join(running.outcome))
        console.print(line, soft_wrap=True)

    return observe


def _bar(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(
        *columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
    )
