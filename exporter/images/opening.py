"""Open an image: from a file, or from a part of one such as a member of a tar archive."""

import io
import stat
from pathlib import Path

from PIL import Image

from exporter.images.kinds import FORMATS


def open_image(path: Path) -> Image.Image:
    """An image file, read whole; its orientation in EXIF is left alone.

    Raises:
        OSError: it cannot be read, or holds no image.
        ValueError: it is a pipe, a socket or a device, which would be waited for, or read without end. Pillow raises
            more than these two on damaged files.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    with Image.open(path, formats=FORMATS) as image:
        image.load()
    return image


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header.

    Raises:
        OSError: as `open_image`.
    """
    with Image.open(path, formats=FORMATS) as image:
        return image.size


def open_part(path: Path, offset: int, size: int) -> Image.Image:
    """An image that is a part of a regular file.

    Args:
        path: of the file.
        offset: of the part's first byte.
        size: of the part, in bytes.

    Raises:
        OSError, ValueError: as `open_image`.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
    return image
