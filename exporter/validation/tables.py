"""Small text files that users write: tables of images, class names, prompt templates.

Every complaint names the file and the line.
"""

import csv
import io
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import UsageError

PLACE = "{}"

LARGEST_BYTES = 64 << 20
"""Of a file that people write; what is larger is something else."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table: its cells in the order that was asked for, and the line where it ends."""

    values: tuple[str, ...]
    line: int


def read_table(path: Path, columns: Sequence[str], *, exact: bool = True) -> tuple[Row, ...]:
    """Read a CSV file with a header.

    Args:
        path: UTF-8; blank lines are allowed.
        columns: of the header.
        exact: whether these have to be all columns.

    Raises:
        UsageError: not readable, another header, an empty cell, a row that is too short or too long, or no rows.
    """
    rows = _lines_of_csv(path)
    header = _header(rows)
    if (header != tuple(columns)) if exact else not set(columns) <= set(header):
        raise UsageError(
            f"{path}: expected the header {','.join(columns)}, got {','.join(header) or 'an empty file'}"
        )
    if len(rows) == 1:
        raise UsageError(f"{path}: expected rows of {','.join(columns)} below the header, got none")
    taken = [header.index(column) for column in columns]
    return tuple(_cells(path, row, header, taken) for row in rows[1:])


def read_header(path: Path) -> tuple[str, ...]:
    """The columns of a CSV file; none of an empty one.

    Raises:
        UsageError: not readable.
    """
    return _header(_lines_of_csv(path))


def read_lines(path: Path, what: str) -> tuple[str, ...]:
    """Read a text file of one item per line, such as class names in the order of their indices.

    Args:
        path: UTF-8.
        what: the items, as messages name them.

    Raises:
        UsageError: not readable, empty, or with an empty line before the last item, which would shift the rest.
    """
    lines = [line.strip() for line in _text(path, what).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UsageError(f"{what}: {path} is empty: expected one per line")
    if "" in lines:
        raise UsageError(f"{what}: {path}, line {lines.index('') + 1} is empty: expected one per line")
    return tuple(lines)


def read_templates(path: Path) -> tuple[str, ...]:
    """Read prompt templates, one per line, with `{}` where the class name goes.

    Raises:
        UsageError: as `read_lines`, or a line in which `{}` is not there exactly once.
    """
    templates = read_lines(path, "templates")
    for number, template in enumerate(templates, start=1):
        if template.count(PLACE) != 1 or set("{}") & set(template.replace(PLACE, "")):
            raise UsageError(
                f'templates: {path}, line {number}: expected one {{}} where the class name goes, got "{template}"'
            )
    return templates


def _lines_of_csv(path: Path) -> list[Row]:
    text = _text(path, "table")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(Row(values=tuple(cells), line=reader.line_num))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: not a CSV file ({error})") from error
    return rows


def _header(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in rows[0].values) if rows else ()


def _cells(path: Path, row: Row, header: Sequence[str], taken: Sequence[int]) -> Row:
    if len(row.values) != len(header):
        raise UsageError(
            f"{path}, line {row.line}: expected {len(header)} cells ({','.join(header)}), got {len(row.values)}; "
            f"put cells with commas in double quotes"
        )
    values = tuple(row.values[position].strip() for position in taken)
    if "" in values:
        raise UsageError(f"{path}, line {row.line}: {header[taken[values.index('')]]} is empty")
    return Row(values=values, line=row.line)


def _text(path: Path, what: str) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{what}: {path} is not a regular file; save what it gives as a text file")
        if path.stat().st_size > LARGEST_BYTES:
            raise UsageError(f"{what}: {path} is larger than {LARGEST_BYTES >> 20} MiB; expected a text file")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{what}: cannot read {path} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{what}: {path} is not UTF-8 text; save it as UTF-8") from error
