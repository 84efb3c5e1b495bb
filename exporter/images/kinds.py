"""Which files and folders of a data set are images: by their names alone, before anything is opened.

In: a folder. Out: a `Listing` of the images below it, and of what was left out, so that nothing is ignored in silence.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import features

from exporter.errors import UsageError, first_few, quoted

_SUFFIXES: dict[str, tuple[str, ...]] = {
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpeg", ".jpg", ".jfif", ".jpe"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PNG": (".png", ".apng"),
    "PPM": (".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""By Pillow's name of the format."""

_CODECS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
"""What Pillow needs to have been built with."""

_OTHER_SUFFIX = re.compile(
    "[.](heic|heif|hif|jxl|svgz?|psd|tga|ico|qoi|exr|hdr|dds|eps|pcx|sgi|bpg|jxr|wdp|dcm|dicom|fits|svs|ndpi"
    "|cr2|cr3|nef|nrw|arw|dng|orf|rw2|raf|pef|srw|raw)"
)
"""Of images that are not read here."""

STRAY = frozenset(
    (
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "lost+found",
        "system volume information",
        "__pycache__",
    )
)
_STRAY_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))
_SHOWN = 5


def _readable_formats() -> tuple[str, ...]:
    known = (*features.modules, *features.codecs)
    missing = {name for name, codec in _CODECS.items() if codec not in known or not features.check(codec)}
    return tuple(name for name in _SUFFIXES if name not in missing)


FORMATS = _readable_formats()
"""The readers that may be tried, whatever a file is called: EPS, for one, would be handed to Ghostscript."""

SUFFIXES = frozenset(suffix for name in FORMATS for suffix in _SUFFIXES[name])
_WITHOUT_CODEC = frozenset(suffix for each in _SUFFIXES.values() for suffix in each) - SUFFIXES


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What lies below a folder.

    Attributes:
        images: sorted.
        other_kinds: number of images that are not read here, by suffix.
        skipped: names of what is hidden, or written by systems and editors.
    """

    images: tuple[Path, ...] = ()
    other_kinds: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def list_images(folder: Path) -> Listing:
    """Images at any depth, through links, each real folder once.

    Raises:
        UsageError: a folder cannot be read.
    """
    return join_listings(listings_of(folder))


def listings_of(folder: Path) -> Iterator[Listing]:
    """What `list_images` joins, one folder after another; the names of skipped folders come last.

    Raises:
        UsageError: a folder cannot be read.
    """
    skipped = dict[str, None]()
    try:
        for place, names in _walk(folder, skipped):
            yield sort_files(place / name for name in names)
    except OSError as error:
        raise UsageError(
            f"data: {quoted(error.filename)} cannot be read ({error.strerror}); move it away, or let it be read"
        ) from error
    yield Listing(skipped=tuple(skipped))


def sort_files(paths: Iterable[Path]) -> Listing:
    """Tell images among some files from the rest."""
    images, kinds, skipped = list[Path](), Counter[str](), list[str]()
    for path in sorted(paths):
        suffix = path.suffix.lower()
        if is_stray(path.name):
            skipped.append(path.name)
        elif suffix in SUFFIXES:
            images.append(path)
        elif suffix in _WITHOUT_CODEC or _OTHER_SUFFIX.fullmatch(suffix):
            kinds[suffix] += 1
    return Listing(images=tuple(images), other_kinds=kinds, skipped=tuple(skipped))


def is_stray(name: str) -> bool:
    """Whether a file or folder is hidden, or written by a system or an editor."""
    return name.startswith(".") or name.lower() in STRAY | _STRAY_FILES


def join_listings(listings: Iterable[Listing]) -> Listing:
    """Everything of several listings."""
    found = list(listings)
    kinds = sum((Counter(each.other_kinds) for each in found), Counter[str]())
    return Listing(
        images=tuple(sorted(path for each in found for path in each.images)),
        other_kinds=kinds,
        skipped=tuple(sorted({name for each in found for name in each.skipped})),
    )


def listing_notes(listing: Listing) -> tuple[str, ...]:
    """What was left out, in sentences for the user."""
    notes = []
    if listing.other_kinds:
        notes.append(f"{kinds_text(listing.other_kinds)} left out, not read here: convert to PNG or JPEG")
    if listing.skipped:
        notes.append(f"skipped, as no images and no classes: {names_text(listing.skipped)}")
    return tuple(notes)


def kinds_text(kinds: Mapping[str, int]) -> str:
    """Such as `12 files (9 .heic, 3 .svg)`."""
    counts = ", ".join(f"{number} {suffix}" for suffix, number in sorted(kinds.items(), key=_most_first))
    total = sum(kinds.values())
    return f"{total} file{'s' if total > 1 else ''} ({counts})"


def names_text(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    return first_few(list(names), 40, _SHOWN)


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _walk(folder: Path, skipped: dict[str, None]) -> Iterator[tuple[Path, list[str]]]:
    seen: set[str] = set()
    for place, below, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(place)
        skipped |= dict.fromkeys(name for name in below if is_stray(name))
        below[:] = [] if real in seen else sorted(name for name in below if not is_stray(name))
        if real not in seen:
            yield Path(place), files
        seen.add(real)


def _raise(error: OSError) -> None:
    raise error
