"""Where text for people goes, and how wide it may be."""

import sys

from rich.console import Console

_WIDTH_OF_A_PIPE = 160


def console(*, stderr: bool = False) -> Console:
    """A console over stdout or stderr; a pipe or a file has no width of its own, and gets one that fits the tables.

    Brackets in names and paths are text, not markup.
    """
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, width=None if stream.isatty() else _WIDTH_OF_A_PIPE, highlight=False, markup=False
    )
