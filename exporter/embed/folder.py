"""A folder of images as rows: one folder after another, each sorted, at any depth and through links."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from exporter.embed.row import Row, Source, as_text, stamp_of
from exporter.errors import UsageError
from exporter.images import SUFFIXES, Listing, join_listings, kinds_text, listing_notes, listings_of


def folder_source(folder: Path) -> Source:
    """The images of a folder, named as seen from it.

    Raises:
        UsageError: when it is read: there are none, or a folder in it cannot be read.
    """
    left_out = [Listing()]

    def rows() -> Iterator[Row]:
        whole, count = Listing(), 0
        for listing in listings_of(folder):
            whole = join_listings((whole, replace(listing, images=())))
            count += len(listing.images)
            yield from (_row(folder, path) for path in listing.images)
        if not count:
            what = kinds_text(whole.other_kinds) if whole.other_kinds else "none"
            raise UsageError(f"data: {folder}: expected images ({', '.join(sorted(SUFFIXES))}), got {what}")
        left_out[0] = whole

    return Source(name=folder.resolve().name, rows=rows, notes=lambda: listing_notes(left_out[0]))


def _row(folder: Path, path: Path) -> Row:
    file = str(path.absolute())
    return Row(name=as_text(path.relative_to(folder).as_posix()), file=file, stamp=stamp_of(file))
