"""The images that something is measured on, with labels or without, wherever they lie.

In: files or arrays. Out: an `ImageSet`, which `decode` turns into pixels. Nothing is decoded here: a corrupt image is
found, named and counted there.
"""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from exporter.errors import InternalError
from exporter.images import image_size, open_image
from exporter.targets import Array
from exporter.validation.class_labels import LabelMatch


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images, and the class index of each.

    Attributes:
        name: of the data, as reports print it.
        names: of each image, as messages print it.
        labels: class indices; None if there are none.
        open: the image at a position, its orientation in EXIF left alone as the libraries' transforms leave it; can
            be pickled. Raises what Pillow raises.
        bytes_per_pixel: of the file of the image at a position; of one in memory, as PNG. Raises as `open` does.
        fingerprint: sha256 over names, labels and each file's size and times, or the bytes of images in memory.
        match: which class each of the user's labels was found to be.
        notes: what was left out, one sentence each.
    """

    name: str
    names: tuple[str, ...]
    labels: tuple[int, ...] | None
    open: Callable[[int], Image.Image]
    bytes_per_pixel: Callable[[int], float]
    fingerprint: str
    match: LabelMatch | None = None
    notes: tuple[str, ...] = ()


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
        open=partial(_open_array, images_BHWC),
        bytes_per_pixel=partial(_array_bytes_per_pixel, images_BHWC),
        fingerprint=digest.hexdigest(),
    )


def image_files(
    name: str,
    paths: Sequence[Path],
    names: Sequence[str],
    *,
    labels: Sequence[int] | None = None,
    match: LabelMatch | None = None,
    notes: tuple[str, ...] = (),
) -> ImageSet:
    """Files as a set.

    Args:
        name: of the set.
        paths: of the files.
        names: of each, as messages print it.
        labels: class indices, or None.
        match: that they are from.
        notes: what was left out.
    """
    numbers = None if labels is None else tuple(labels)
    facts = (tuple(names), numbers, tuple(_size_and_time(path) for path in paths))
    return ImageSet(
        name=name,
        names=tuple(names),
        labels=numbers,
        open=partial(_open_file, tuple(paths)),
        bytes_per_pixel=partial(_file_bytes_per_pixel, tuple(paths)),
        fingerprint=hashlib.sha256(repr(facts).encode()).hexdigest(),
        match=match,
        notes=notes,
    )


def _open_file(paths: Sequence[Path], position: int) -> Image.Image:
    return open_image(paths[position])


def _open_array(images_BHWC: Array, position: int) -> Image.Image:
    return Image.fromarray(images_BHWC[position])


def _file_bytes_per_pixel(paths: Sequence[Path], position: int) -> float:
    width, height = image_size(paths[position])
    return os.path.getsize(paths[position]) / (width * height)


def _array_bytes_per_pixel(images_BHWC: Array, position: int) -> float:
    image, encoded = Image.fromarray(images_BHWC[position]), io.BytesIO()
    image.save(encoded, format="PNG")
    return len(encoded.getvalue()) / (image.width * image.height)


def _size_and_time(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # a dangling link: decoding reports it
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
