"""Where text for people goes, and how wide it may be."""

import sys
from collections.abc import Collection

from rich.console import Console
from rich.table import Table

_WIDTH_OF_A_PIPE = 160


def console(*, stderr: bool = False) -> Console:
    """A console over stdout or stderr; a pipe or a file has no width of its own, and gets one that fits the tables.

    Brackets in names and paths are text, not markup.
    """
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, width=None if stream.isatty() else _WIDTH_OF_A_PIPE, highlight=False, markup=False
    )


def say(out: Console, line: str, style: str | None = None) -> None:
    """One line, as long as it is; brackets are text."""
    out.print(line, style=style, soft_wrap=True, markup=False)


def figures(title: str | None, headings: Collection[str], words: Collection[str]) -> Table:
    """A table of figures, set flush right, but for the columns of words."""
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in words else "right")
    return table
