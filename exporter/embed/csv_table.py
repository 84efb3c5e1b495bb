"""A CSV file that lists images as rows, read line by line."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.embed.row import Column, Row, Source, listed_row
from exporter.embed.table_columns import check_carried, image_column
from exporter.errors import UsageError, quoted


def csv_source(path: Path, carry: Sequence[str]) -> Source:
    """The images that a column `image` or `path` lists, as seen from the file; carried values are texts.

    Args:
        path: UTF-8, with a header.
        carry: columns to carry along.

    Raises:
        UsageError: the header lacks a column; or, when it is read, a line that is no such row.
    """
    header = next((cells for _, cells in _lines(path)), [])
    place = header.index(image_column(header, path))
    check_carried(carry, header, path)
    folder = str(path.parent.absolute())
    taken = [header.index(name) for name in carry]

    def rows() -> Iterator[Row]:
        lines = _lines(path)
        next(lines)
        for number, cells in lines:
            if len(cells) != len(header) or not cells[place]:
                raise UsageError(
                    f"{quoted(path)}, line {number}: expected {len(header)} cells ({','.join(header)}) with an "
                    f"{header[place]}, got {quoted(','.join(cells))}; put cells with commas in double quotes"
                )
            yield listed_row(folder, cells[place], tuple(cells[index] for index in taken))

    return Source(
        name=path.name, rows=rows, columns=tuple(Column(name=name, kind="string") for name in carry)
    )


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not blank, and their numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, [cell.strip() for cell in cells]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{quoted(path)}: not a CSV file in UTF-8 ({error})") from None
