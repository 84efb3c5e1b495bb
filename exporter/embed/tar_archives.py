"""Tar archives of images as rows. Headers and carried texts are read here; a worker reads an image at its place."""

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from exporter.embed.row import Column, Row, Source, as_text, stamp_of
from exporter.errors import UsageError, quoted
from exporter.images import SUFFIXES, is_stray

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LARGEST_TEXT = 1 << 20


def tar_source(pattern: str, carry: Sequence[str]) -> Source:
    """The images in one archive, or in all that a range names, such as `shard-{000..099}.tar`.

    A row is named by its archive and its place in it. Members whose names are equal up to the first dot, one after
    another, belong together, as in a WebDataset: `007.jpg` and `007.txt`.

    Args:
        pattern: of the archives.
        carry: endings of texts beside the images, such as `txt` or `json`, that are carried along.

    Raises:
        UsageError: an archive is not there; or, when it is read, damaged or compressed, or none of them holds an image
            or a text that is to be carried.
    """
    archives = [Path(name) for name in expanded(pattern)]
    if missing := [path for path in archives if not path.is_file()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(f"data: {quoted(pattern)}: there is no {quoted(missing[0])}{more}")

    def rows() -> Iterator[Row]:
        count, absent = 0, set(carry)
        for path in archives:
            for row in _rows(path, carry):
                count += 1
                absent -= {name for name, value in zip(carry, row.carried, strict=True) if value is not None}
                yield row
        if not count:
            raise UsageError(
                f"data: {quoted(pattern)}: expected images ({', '.join(sorted(SUFFIXES))}), got none"
            )
        if absent:
            raise UsageError(f"carry: {quoted(pattern)}: no image has a text .{min(absent)} beside it")

    columns = tuple(Column(name=name, kind="string") for name in carry)
    return Source(name=Path(pattern).name, rows=rows, columns=columns)


def expanded(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for: `a-{08..10}.tar` is `a-08.tar`, `a-09.tar` and `a-10.tar`."""
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from expanded(f"{pattern[: found.start()]}{number:0{len(first)}}{pattern[found.end() :]}")


def _rows(path: Path, carry: Sequence[str]) -> Iterator[Row]:
    """The images of an archive, each with the texts beside it."""
    stamp, file = stamp_of(str(path)), str(path.absolute())
    for sample in _samples(path, carry):
        carried = tuple(sample.texts.get(name) for name in carry)
        for member in sample.images:
            yield Row(
                name=as_text(f"{path.name}/{member.name}"),
                file=file,
                part=(member.offset_data, member.size),
                stamp=stamp,
                carried=carried,
            )


@dataclass(kw_only=True)
class _Sample:
    """Members that belong together: images, and texts by their endings."""

    key: PurePosixPath | None = None
    images: list[tarfile.TarInfo] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)


def _samples(path: Path, carry: Sequence[str]) -> Iterator[_Sample]:
    sample = _Sample()
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                name = PurePosixPath(member.name)
                stem, _, ending = name.name.partition(".")
                if not member.isreg() or is_stray(name.name):
                    continue
                if sample.key != name.with_name(stem):
                    yield sample
                    sample = _Sample(key=name.with_name(stem))
                if name.suffix.lower() in SUFFIXES:
                    sample.images.append(member)
                elif ending in carry:
                    sample.texts[ending] = _text(archive, member, path)
    except tarfile.TarError as error:
        raise UsageError(f"data: {quoted(path)}: not a whole, uncompressed tar archive ({error})") from None
    yield sample


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> str:
    stream = archive.extractfile(member)
    assert stream is not None  # of a regular file
    try:
        if member.size > _LARGEST_TEXT:
            raise ValueError(f"{member.size} bytes")
        return stream.read().decode("utf-8")
    except ValueError as error:
        raise UsageError(
            f"carry: {quoted(path)}: {quoted(member.name)}: expected a text in UTF-8 of at most "
            f"{_LARGEST_TEXT >> 20} MiB ({quoted(error)})"
        ) from None
