"""Everything that can go wrong, as a tree of exceptions with the exit status each one ends a command with.

What the user can act on is an `ExportError`: one line that says what, where, expected against got, and how to fix
it. A broken invariant of the compiler itself is an `InternalError`, which asks for a report.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar

EXIT_INTERRUPTED = 130


class ExportError(Exception):
    """A failure that the user can act on. Its message is one line; `exit_status` is the command's."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class UsageError(ExportError):
    """The command line or the Python call asks for something that makes no sense."""

    exit_status = 2


class RecipeError(ExportError):
    """A recipe has unknown keys, wrong types or impossible values."""

    exit_status = 2


class ModelUnavailableError(ExportError):
    """The model is unknown, or cannot be fetched or built here."""

    exit_status = 3


class WeightsError(ExportError):
    """The weights are missing, damaged, or belong to another architecture."""

    exit_status = 3


class UnsupportedGraphError(ExportError):
    """The model's graph holds something that token merging cannot be applied to soundly."""

    exit_status = 4


class ParityError(ExportError):
    """An emitted artifact does not compute what the eager program computes."""

    exit_status = 5


class GateError(ExportError):
    """Accuracy or speed fell short of what the recipe demands."""

    exit_status = 6


class TargetUnavailableError(ExportError):
    """The target's library, engine or device is not there."""

    exit_status = 7


class BundleError(ExportError):
    """A bundle is damaged, incomplete, or not a bundle."""

    exit_status = 8


class InternalError(Exception):
    """A broken invariant of the compiler: nothing that the user did. Exit status 70."""

    exit_status: ClassVar[int] = 70

    def __init__(self, message: str) -> None:
        super().__init__(f"internal error: {message} (please report this)")


def nearest(word: str, choices: Iterable[str]) -> str:
    """The suggestion to append to a message about an unknown word: ` Did you mean "x"?`, or an empty string."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f' Did you mean "{matches[0]}"?' if matches else ""


LONGEST_QUOTE = 80


def quoted(given: object, most: int = LONGEST_QUOTE) -> str:
    """What a user gave, as a message repeats it: printable, and cut in the middle where it is longer than `most`.

    >>> quoted("a" * 100, 11)
    'aaaa...aaaa'
    """
    shown = "".join(map(_printable, str(given)))
    if len(shown) <= most:
        return shown
    head = (most - 3) // 2
    return f"{shown[:head]}...{shown[head + 3 - most :]}"


def _printable(character: str) -> str:
    """Control characters, lone surrogates and what turns the direction of text as escapes."""
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
