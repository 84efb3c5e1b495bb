"""The columns of a table of images: which one names the images, and whether those to carry are there."""

from collections.abc import Sequence
from pathlib import Path

from exporter.errors import UsageError, first_few, nearest, quoted

IMAGE_COLUMNS = ("image", "path")

PATH, ERROR = "path", "error"
"""Columns of every output, beside that of the vectors."""

RUNG = "rung"
"""Column of the output of a ladder: which of its engines gave the vector."""


def image_column(header: Sequence[str], table: Path) -> str:
    """The column that names the images.

    Raises:
        UsageError: there is none, or both of the possible ones.
    """
    found = [name for name in IMAGE_COLUMNS if name in header]
    if len(found) != 1:
        got = " and ".join(found) or first_few(header) or "an empty file"
        raise UsageError(f"{quoted(table)}: expected one column image or path, got {got}")
    return found[0]


def check_carried(carry: Sequence[str], header: Sequence[str], table: Path) -> None:
    """Whether a table has the columns to carry.

    Raises:
        UsageError: one is not there, or named twice.
    """
    for name in carry:
        if header.count(name) != 1:
            raise UsageError(
                f'carry: {quoted(table)}: expected one column "{quoted(name)}", got {first_few(header)}.'
                f"{nearest(name, header)}"
            )
    if len(set(carry)) < len(carry):
        raise UsageError(f"carry: expected each column once, got {', '.join(carry)}")
