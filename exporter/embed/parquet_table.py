"""A Parquet file that lists images as rows, read batch by batch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from exporter.embed.parquet import load_library
from exporter.embed.row import Column, Kind, Row, Source, listed_row
from exporter.embed.table_columns import check_carried, image_column
from exporter.errors import UsageError, library_failures, quoted

_BATCH = 4096


def parquet_source(path: Path, carry: Sequence[str]) -> Source:
    """The images that a column `image` or `path` lists, as seen from the file; carried values keep their types.

    Args:
        path: of one file.
        carry: columns of texts, whole numbers, floats or truth values.

    Raises:
        UsageError: not a Parquet file, a column is not there, or of another type; or, when it is read, a row without
            an image.
    """
    _, parquet = load_library()
    with _reading(path), parquet.ParquetFile(path) as table:
        schema = table.schema_arrow
    place = image_column(schema.names, path)
    check_carried(carry, schema.names, path)
    if _kind(schema.field(place).type) != "string":
        raise UsageError(f"{quoted(path)}: {place}: expected texts, got {quoted(schema.field(place).type)}")
    folder = str(path.parent.absolute())
    columns = tuple(Column(name=name, kind=_carried_kind(schema.field(name), path)) for name in carry)

    def rows() -> Iterator[Row]:
        number = 0
        for values in _batches(path, (place, *carry)):
            for image, *carried in values:
                number += 1
                if not image:
                    raise UsageError(f"{quoted(path)}, row {number}: {place} is empty")
                yield listed_row(folder, image, tuple(carried))

    return Source(name=path.name, rows=rows, columns=columns)


def _batches(path: Path, names: Sequence[str]) -> Iterator[Iterator[tuple[Any, ...]]]:
    _, parquet = load_library()
    with _reading(path), parquet.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=_BATCH, columns=list(names)):
            yield zip(*(batch.column(name).to_pylist() for name in names), strict=True)


def _reading(path: Path) -> Any:
    return library_failures(UsageError, f"data: {quoted(path)} cannot be read", "expected a Parquet file")


def _carried_kind(field: Any, path: Path) -> Kind:
    kind = _kind(field.type)
    if kind is None:
        raise UsageError(
            f"carry: {quoted(path)}: {field.name}: expected texts, numbers or truth values, got {quoted(field.type)}"
        )
    return kind


def _kind(of: Any) -> Kind | None:
    arrow, _ = load_library()
    types = arrow.types
    if types.is_dictionary(of):
        return _kind(of.value_type)
    if types.is_string(of) or types.is_large_string(of):
        return "string"
    if types.is_integer(of) and not types.is_uint64(of):
        return "int64"
    if types.is_floating(of):
        return "float64"
    return "bool" if types.is_boolean(of) else None
