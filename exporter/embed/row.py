"""What is embedded: rows in a fixed order, each an image and the values that are carried along with it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["string", "int64", "float64", "bool"]

Value = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A carried column: its name, and the type of its values."""

    name: str
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image.

    Attributes:
        name: as the output names it; text in UTF-8.
        file: where it lies.
        part: its first byte and its size in bytes, where it is a part of a file.
        stamp: size and time of change, in ns, of the file; None if there is none.
        carried: a value for each carried column.
    """

    name: str
    file: str
    part: tuple[int, int] | None = None
    stamp: tuple[int, int] | None = None
    carried: tuple[Value, ...] = ()

    def to_json(self) -> list[Any]:
        """The row as JSON values."""
        return [self.name, self.file, self.part, self.stamp, self.carried]

    @classmethod
    def from_json(cls, tree: list[Any]) -> "Row":
        """A row that `to_json` wrote."""
        name, file, part, stamp, carried = tree
        return cls(
            name=name,
            file=file,
            part=None if part is None else tuple(part),
            stamp=None if stamp is None else tuple(stamp),
            carried=tuple(carried),
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from.

    Attributes:
        name: of the data, for messages.
        rows: all of them, in an order that stays; each call reads the data again.
        columns: that are carried.
        notes: what the last reading left out, one sentence each.
    """

    name: str
    rows: Callable[[], Iterator[Row]]
    columns: tuple[Column, ...] = ()
    notes: Callable[[], tuple[str, ...]] = field(default=tuple)


def stamp_of(file: str) -> tuple[int, int] | None:
    """Size and time of change, in ns; None of a file that cannot be read, which its row will say."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def listed_row(folder: str, name: str, carried: tuple[Value, ...]) -> Row:
    """The row of an image that a table lists.

    Args:
        folder: absolute, of the table.
        name: of the image, as seen from there.
        carried: values.
    """
    file = os.path.join(folder, name)
    return Row(name=as_text(name), file=file, stamp=stamp_of(file), carried=carried)


def as_text(path: str) -> str:
    """A path as text in UTF-8: bytes that are none are written as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
