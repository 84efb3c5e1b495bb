"""What the user names with `--data`: a folder, a CSV or Parquet table of images, or tar archives."""

import re
from collections.abc import Sequence
from pathlib import Path

from exporter.embed.csv_table import csv_source
from exporter.embed.folder import folder_source
from exporter.embed.parquet_table import parquet_source
from exporter.embed.row import Source
from exporter.embed.tar_archives import tar_source
from exporter.errors import UsageError, quoted


def open_source(data: str, carry: Sequence[str]) -> Source:
    """The rows of a folder of images, of a `.csv` or `.parquet` table, or of `.tar` archives.

    Args:
        data: a path; of archives, numbers may be a range, such as `shard-{000..099}.tar`.
        carry: columns of a table, or endings of texts in archives, that go into the output.

    Raises:
        UsageError: none of these, nothing there, or there are no such columns.
    """
    path = Path(data)
    suffix = path.suffix.lower()
    if carry and path.is_dir():
        raise UsageError(
            f"carry: {quoted(data)} has no columns to carry along; list the images in a .csv or .parquet file"
        )
    if path.is_dir():
        return folder_source(path)
    if suffix == ".tar":
        return tar_source(data, carry)
    if re.search(r"\.(tar\.\w+|tgz|tbz2?|txz)$", path.name.lower()):
        raise UsageError(
            f"data: {quoted(data)} is compressed: images are read at their places in the archive; unpack it to a .tar"
        )
    if not path.exists():
        raise UsageError(f"data: there is no {quoted(data)}: expected a folder of images, or {_KINDS}")
    if suffix == ".csv":
        return csv_source(path, carry)
    if suffix == ".parquet":
        return parquet_source(path, carry)
    raise UsageError(f"data: {quoted(data)} is neither a folder of images nor {_KINDS}")


_KINDS = "a .csv, .parquet or .tar file"
