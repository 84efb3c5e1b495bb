"""Progress by stage, on stderr."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from exporter.pipeline import Note, Observer, silent


def observer(console: Console, *, quiet: bool) -> Observer:
    """A line per stage with its time and outcome; a spinner while it runs, where stderr is a terminal."""
    if quiet:
        return silent

    @contextmanager
    def observe(stage: str) -> Iterator[Note]:
        outcome: list[str] = []
        started = time.perf_counter()
        with console.status(f"{stage} ..."):
            yield outcome.append
        seconds = time.perf_counter() - started
        took = (f"{stage:<18} {seconds:6.1f} s  ", "dim")
        console.print(Text.assemble(("✓ ", "green"), took, " ".join(outcome)), soft_wrap=True)

    return observe
