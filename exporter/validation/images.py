"""What is measured on: images in a folder, a CSV file or memory, with labels or without.

In: what the user names with `--data`, or what a model ships. Out: an `ImageSet`, which `decode` turns into pixels.
Nothing is decoded here: a corrupt image is found, named and counted there. A label that the model does not have is
an error here, before anything runs.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from exporter.errors import InternalError, UsageError
from exporter.targets import Array
from exporter.validation.tables import Row, read_table

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

MOST_DIGITS = 9  # of a class index

# The readers that may be tried, whatever a file is called: EPS, for one, would be handed to Ghostscript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images, and the class index of each.

    Attributes:
        name: of the data, as reports print it.
        names: of each image, as messages print it.
        labels: class indices; None if there are none.
        open: the image at a position, its orientation in EXIF left alone as the libraries' transforms leave it; can
            be pickled. Raises what Pillow raises.
        fingerprint: sha256 over names, labels and what tells whether a file was changed (size and time), or the bytes
            of images in memory.
    """

    name: str
    names: tuple[str, ...]
    labels: tuple[int, ...] | None
    open: Callable[[int], Image.Image]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class ImagePairs:
    """Images with captions.

    Attributes:
        images: without labels, each once.
        texts: each once.
        pairs: (position in images, position in texts) of all that belong together.
    """

    images: ImageSet
    texts: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]


def open_images(
    path: Path, *, classes: int | None, class_names: Sequence[str] = (), unlabelled: bool = False
) -> ImageSet:
    """A folder of images, or a CSV file that lists them.

    Args:
        path: folder or `.csv`.
        classes: that the model has; None if it has none, then labels are not checked against it.
        class_names: in the order of their indices, where they are known.
        unlabelled: whether to leave labels out if there are any.

    Raises:
        UsageError: neither of the two, nothing in it, or labels that are not the model's.
    """
    if path.is_dir():
        return image_folder(path, classes=classes, class_names=class_names, unlabelled=unlabelled)
    if not path.exists():
        raise UsageError(f"data: there is no {path}: expected a folder of images, or a CSV file")
    if path.suffix.lower() != ".csv":
        raise UsageError(f"data: {path} is neither a folder of images nor a .csv file of image,label")
    return image_csv(path, classes=classes, unlabelled=unlabelled)


def image_folder(
    folder: Path, *, classes: int | None, class_names: Sequence[str] = (), unlabelled: bool = False
) -> ImageSet:
    """One sub-folder per class, as ImageNet has it; or just images.

    Sub-folders that are called like the classes, or by decimal numbers, are numbered by that. Others are numbered in
    the order of their names, so there has to be one for every class: a part of them would be numbered wrongly. Links
    are followed; files that are hidden, or not called like images, are not looked at.

    Args:
        folder: without sub-folders, or with one per class.
        classes: that the model has; None if it has none.
        class_names: in the order of their indices, where they are known.
        unlabelled: whether to take all images at any depth, without labels.

    Raises:
        UsageError: no such folder, no images, images beside the class folders, or classes that are not the model's.
    """
    if not folder.is_dir():
        raise UsageError(f"data: expected a folder of images, got {folder}")
    if unlabelled:
        return _of_files(folder, sorted(_images_below(folder)), None)
    outside = sorted(path for path in _entries(folder) if _is_image(path))
    folders = sorted(path for path in _entries(folder) if path.is_dir())
    if not folders:
        return _of_files(folder, outside, None)
    if outside:
        raise UsageError(
            f"data: {folder} holds images ({outside[0].name}) beside sub-folders ({folders[0].name}): move them into "
            f"the folder of their class, or ask for no labels"
        )
    found = [
        (path, label)
        for label, entry in _numbered(folder, folders, classes, class_names)
        for path in sorted(_images_below(entry))
    ]
    return _of_files(folder, [path for path, _ in found], [label for _, label in found])


def image_csv(path: Path, *, classes: int | None, unlabelled: bool = False) -> ImageSet:
    """Images listed under the header `image,label`: paths as seen from the file, and class indices.

    Args:
        path: UTF-8.
        classes: that the model has; None if it has none.
        unlabelled: whether to leave labels out; a column of images is then enough.

    Raises:
        UsageError: not such a file, a missing image, or a label that is not the model's; with the line.
    """
    rows = read_table(path, ("image",) if unlabelled else ("image", "label"), exact=not unlabelled)
    files = [_existing(path, row) for row in rows]
    labels = None if unlabelled else [_label(path, row, classes) for row in rows]
    return _of_files(path.parent, files, labels, name=path.name, names=[row.values[0] for row in rows])


def image_pairs(path: Path) -> ImagePairs:
    """Images and captions listed under the header `image,caption`.

    An image may have several rows, one for each caption; equal captions are one text. The images' fingerprint does
    not hold the captions.

    Raises:
        UsageError: not such a file, a missing image, or an empty caption; with the line.
    """
    rows = read_table(path, ("image", "caption"))
    images = {row.values[0]: _existing(path, row) for row in rows}
    texts = tuple(dict.fromkeys(row.values[1] for row in rows))
    of_image = {name: position for position, name in enumerate(images)}
    of_text = {text: position for position, text in enumerate(texts)}
    pairs = dict.fromkeys((of_image[row.values[0]], of_text[row.values[1]]) for row in rows)
    listed = _of_files(path.parent, list(images.values()), None, name=path.name, names=list(images))
    return ImagePairs(images=listed, texts=texts, pairs=tuple(pairs))


def image_arrays(images_BHWC: Array, labels: Sequence[int] | Array | None, name: str) -> ImageSet:
    """Images that are in memory already.

    Args:
        images_BHWC: uint8, RGB.
        labels: class indices, or None.
        name: of the data; image 3 is called `name[3]`.

    Raises:
        InternalError: another shape or type.
    """
    if images_BHWC.dtype != "uint8" or images_BHWC.ndim != 4 or images_BHWC.shape[-1] != 3:
        raise InternalError(
            f"images in memory: expected uint8 (n, H, W, 3), got {images_BHWC.dtype} {images_BHWC.shape}"
        )
    if labels is not None and len(labels) != len(images_BHWC):
        raise InternalError(f"{name} has {len(images_BHWC)} images and {len(labels)} labels")
    numbers = None if labels is None else tuple(int(label) for label in labels)
    digest = hashlib.sha256(repr((name, images_BHWC.shape, numbers)).encode())
    digest.update(images_BHWC.tobytes())
    return ImageSet(
        name=name,
        names=tuple(f"{name}[{position}]" for position in range(len(images_BHWC))),
        labels=numbers,
        open=_Arrays(images_BHWC=images_BHWC),
        fingerprint=digest.hexdigest(),
    )


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Opens files by position; an object rather than a closure, so that it can be sent to another process."""

    paths: tuple[Path, ...]

    def __call__(self, position: int) -> Image.Image:
        with Image.open(self.paths[position], formats=_FORMATS) as image:
            image.load()
        return image


@dataclass(frozen=True, kw_only=True)
class _Arrays:
    """Opens images in memory by position."""

    images_BHWC: Array

    def __call__(self, position: int) -> Image.Image:
        return Image.fromarray(self.images_BHWC[position])


def _of_files(
    root: Path,
    paths: Sequence[Path],
    labels: Sequence[int] | None,
    *,
    name: str | None = None,
    names: Sequence[str] | None = None,
) -> ImageSet:
    """Files as a set; named as seen from a folder, unless they have names already."""
    if not paths:
        raise UsageError(f"data: {root} holds no images ({', '.join(sorted(SUFFIXES))})")
    shown = tuple(names or (path.relative_to(root).as_posix() for path in paths))
    numbers = None if labels is None else tuple(labels)
    facts = (shown, numbers, tuple(_size_and_time(path) for path in paths))
    return ImageSet(
        name=name or root.resolve().name,
        names=shown,
        labels=numbers,
        open=_Files(paths=tuple(paths)),
        fingerprint=hashlib.sha256(repr(facts).encode()).hexdigest(),
    )


def _size_and_time(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # a dangling link: decoding reports it
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _entries(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _images_below(folder: Path) -> Iterator[Path]:
    """Images at any depth, through links, each real folder once."""
    seen: set[str] = set()
    for place, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real not in seen:
            yield from (path for path in (Path(place) / file for file in files) if _is_image(path))
        seen.add(real)


def _numbered(
    folder: Path, folders: Sequence[Path], classes: int | None, class_names: Sequence[str]
) -> Iterable[tuple[int, Path]]:
    names = [entry.name for entry in folders]
    _check_spelling(folder, names, class_names)
    if strangers := [name for name in names if name not in class_names]:
        if len(strangers) < len(names):
            raise UsageError(
                f"data: {folder / strangers[0]}: expected a folder called like a class, as others here are, got "
                "none of the class names"
            )
    else:
        return ((class_names.index(entry.name), entry) for entry in folders)
    if not all(name.isascii() and name.isdecimal() for name in names):
        if classes is not None and len(folders) != classes:
            raise UsageError(
                f"data: expected {classes} class folders as the model has, got {len(folders)} in {folder}; "
                f"give a CSV of image,label"
            )
        return enumerate(folders)
    by_number = {int(entry.name): entry for entry in folders}
    if len(by_number) != len(folders):
        raise UsageError(f"data: two folders in {folder} have the same class index; rename one")
    if classes is not None and (largest := max(by_number)) >= classes:
        raise UsageError(
            f"data: {by_number[largest]}: expected a class index from 0 to {classes - 1}, got {largest}"
        )
    return sorted(by_number.items())


def _check_spelling(folder: Path, names: Iterable[str], class_names: Iterable[str]) -> None:
    """Refuse folders that are called almost like a class: numbered in order, they would be counted as others."""
    known = {_spelled(name): name for name in class_names}
    for name in sorted(set(names).difference(class_names)):
        meant = known.get(_spelled(name), name)
        if meant != name:
            raise UsageError(
                f"data: {folder / name}: expected a folder called like a class, got {name} for the class {meant}; "
                "rename one of them"
            )


def _spelled(name: str) -> str:
    """A name without what people spell differently."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _existing(table: Path, row: Row) -> Path:
    path = table.parent / row.values[0]
    if not os.path.isfile(path):
        raise UsageError(f"{table}, line {row.line}: there is no image {path}")
    return path


def _label(table: Path, row: Row, classes: int | None) -> int:
    text = row.values[1].strip()
    expected = "a class index" + ("" if classes is None else f" from 0 to {classes - 1}")
    if not (text.isascii() and text.isdecimal()) or len(text) > MOST_DIGITS:
        raise UsageError(
            f'{table}, line {row.line}: expected {expected}, got "{text}"; class names are not understood here'
        )
    if classes is not None and int(text) >= classes:
        raise UsageError(f"{table}, line {row.line}: expected {expected}, as the model has, got {text}")
    return int(text)
