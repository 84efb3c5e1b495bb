"""Tar archives of images as rows. Only their headers are read here; a worker reads an image at its place."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from exporter.embed.row import Row, Source, as_text, stamp_of
from exporter.errors import UsageError, quoted
from exporter.images import SUFFIXES, is_stray

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def tar_source(pattern: str) -> Source:
    """The images in one archive, or in all that a range names, such as `shard-{000..099}.tar`.

    A row is named by its archive and its place in it. What is no image, such as the texts beside the images in a
    WebDataset, is left out.

    Raises:
        UsageError: an archive is not there; or, when it is read, damaged, compressed, or none of them holds an image.
    """
    archives = [Path(name) for name in expanded(pattern)]
    if missing := [path for path in archives if not path.is_file()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(f"data: {quoted(pattern)}: there is no {quoted(missing[0])}{more}")

    def rows() -> Iterator[Row]:
        found = False
        for path in archives:
            for row in _members(path):
                found = True
                yield row
        if not found:
            raise UsageError(
                f"data: {quoted(pattern)}: expected images ({', '.join(sorted(SUFFIXES))}), got none"
            )

    return Source(name=Path(pattern).name, rows=rows)


def expanded(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for: `a-{08..10}.tar` is `a-08.tar`, `a-09.tar` and `a-10.tar`."""
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from expanded(f"{pattern[: found.start()]}{number:0{len(first)}}{pattern[found.end() :]}")


def _members(path: Path) -> Iterator[Row]:
    stamp = stamp_of(str(path))
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                name = PurePosixPath(member.name)
                if member.isreg() and name.suffix.lower() in SUFFIXES and not is_stray(name.name):
                    yield Row(
                        name=as_text(f"{path.name}/{member.name}"),
                        file=str(path.absolute()),
                        part=(member.offset_data, member.size),
                        stamp=stamp,
                    )
    except tarfile.TarError as error:
        raise UsageError(f"data: {quoted(path)}: not a whole, uncompressed tar archive ({error})") from None
