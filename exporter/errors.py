"""Everything that can go wrong, as a tree of exceptions with the exit status each one ends a command with.

What the user can act on is an `ExportError`: one line that says what, where, expected against got, and how to fix
it. A broken invariant of the compiler itself is an `InternalError`, which asks for a report. A library's exception on
what a user gave is neither: `library_failures` makes it the error of the room that called the library.
"""

import difflib
import errno
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import ClassVar

EXIT_INTERRUPTED = 130

LONGEST_QUOTE = 80
LONGEST_MESSAGE = 1_000
NAMES_SHOWN = 3

_MACHINE_ERRORS = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EIO,
    )
)
_NO_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "out of memory",
)
"""How native code says it, in exceptions of any type."""


class ExportError(Exception):
    """A failure that the user can act on. Its message is one line; `exit_status` is the command's."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


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
        super().__init__(one_line(f"internal error: {message} (please report this)"))


def nearest(word: str, choices: Iterable[str]) -> str:
    """The suggestion to append to a message about an unknown word: ` Did you mean "x"?`, or an empty string."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f' Did you mean "{matches[0]}"?' if matches else ""


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


def first_few(names: Collection[object], longest: int = LONGEST_QUOTE, most: int = NAMES_SHOWN) -> str:
    """The first names, each as `quoted`, and how many more there are.

    >>> first_few("abcde")
    'a, b, c and 2 more'
    """
    shown = ", ".join(quoted(name, longest) for name in islice(names, most))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def one_line(message: str) -> str:
    """A message without line breaks, in which nothing unbroken, such as a path, is longer than a quote may be."""
    return " ".join(map(quoted, message.split()))


def reason(error: BaseException) -> str:
    """Why something failed, in the words of the system or of the library: one line without its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return quoted(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__, 2 * LONGEST_QUOTE)


@contextmanager
def library_failures(kind: type[ExportError], what: str, way_out: str) -> Iterator[None]:
    """Turn whatever a library raises on what a user gave into one kind of error.

    What is no fault of what was given passes: interrupts, a full disk, too little memory, and the errors of this tree.

    Args:
        kind: of the error to raise.
        what: was being done, and with what, such as `model timm:vit: cannot be loaded`.
        way_out: how to fix it.
    """
    try:
        yield
    except (ExportError, InternalError):
        raise
    except Exception as error:  # the one net for libraries, whose exceptions have no common type
        for cause in causes(error):
            if is_of_the_machine(cause):
                raise cause from None
        raise kind(f"{what} ({reason(error)}); {way_out}") from error


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, and the exceptions that it was raised from or in the handling of, newest first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def is_of_the_machine(error: BaseException) -> bool:
    """Whether the machine is what an exception is about (memory, disk, descriptors), and not what it was given."""
    return is_out_of_memory(error) or (isinstance(error, OSError) and error.errno in _MACHINE_ERRORS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, also where native code says so in another exception."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return not isinstance(error, ExportError) and any(words in text for words in _NO_MEMORY)


def machine_failure(error: Exception) -> ExportError | None:
    """The error of an exception that is about this machine: its memory, its disk, its permissions; None for others."""
    if is_out_of_memory(error):
        return UsageError("not enough memory; give a smaller --batch or --image-size, or free some memory")
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if _NO_TEMPORARY_FOLDER in str(error):
        return UsageError(f"{reason(error)}; set TMPDIR to a folder that can be written")
    if isinstance(error.filename, str | bytes):
        way_out = _WAYS_OUT.get(error.errno, "check that the path is right, and may be read or written")
        return UsageError(f"{quoted(os.fsdecode(error.filename))}: {reason(error)}; {way_out}")
    return UsageError(f"{reason(error)}; {_WAYS_OUT[error.errno]}") if error.errno in _WAYS_OUT else None


_NO_TEMPORARY_FOLDER = "No usable temporary directory"  # of `tempfile`

_ANOTHER_PLACE = "give another place (--out, or TMPDIR for temporary files)"
_WAYS_OUT = {
    errno.ENOSPC: f"free some space, or {_ANOTHER_PLACE}",
    errno.EDQUOT: f"free some of your quota, or {_ANOTHER_PLACE}",
    errno.EFBIG: "files may not grow that large here: raise the limit (ulimit -f unlimited)",
    errno.EROFS: _ANOTHER_PLACE,
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n 4096)",
    errno.ENFILE: "too many files are open on this machine: close some programs",
}


def _printable(character: str) -> str:
    """Control characters, lone surrogates and what turns the direction of text as escapes."""
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
