"""Real and odd images, as files: what people really have in their folders.

Each is encoded once per process and opened by Pillow from its bytes, so that lazy decoding, EXIF, palettes and
transparency are what they are for a file on disk. Shape suffixes: H height, W width, C channels.
"""

import importlib.util
import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

ORIENTATION = 0x0112  # the EXIF tag
ROTATED_BY_90 = 6

# First column, first row, and how far apart columns and rows are, pass by pass.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def noise(width: int, height: int, *, channels: int = 3, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return noise over a ramp (H, W, C), so that a shift by one pixel is seen."""
    ramp_1W1 = np.linspace(0, 155, width)[None, :, None]
    noise_HWC = np.random.default_rng(seed).integers(0, 100, (height, width, channels))
    pixels: npt.NDArray[np.uint8] = (ramp_1W1 + noise_HWC).astype(np.uint8)
    return pixels


def real_photos() -> dict[str, Path]:
    """Return the photos that two libraries bring along."""
    scikit_learn, matplotlib = _home("sklearn"), _home("matplotlib")
    return {
        "china": scikit_learn / "datasets/images/china.jpg",
        "flower": scikit_learn / "datasets/images/flower.jpg",
        "hopper": matplotlib / "mpl-data/sample_data/grace_hopper.jpg",
    }


def _home(library: str) -> Path:
    """Return an installed library's folder, without importing it."""
    spec = importlib.util.find_spec(library)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """Return an image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """Return what Pillow opens, pixels loaded."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def _rgb(width: int, height: int) -> bytes:
    return encoded(Image.fromarray(noise(width, height)), "PNG")


def _photo(**options: Any) -> bytes:
    with Image.open(real_photos()["flower"]) as photo:
        return encoded(photo.resize((161, 107)), options.pop("file_format", "JPEG"), **options)


def _grey_with_alpha() -> bytes:
    return encoded(Image.fromarray(noise(90, 61, channels=2)), "PNG")


def _rgba() -> bytes:
    return encoded(Image.fromarray(noise(77, 100, channels=4)), "PNG")


def _palette() -> Image.Image:
    return Image.fromarray(noise(70, 93)).quantize(32)


def _two_colours() -> bytes:
    return encoded(Image.fromarray(noise(60, 41)).convert("1"), "PNG")


def _cmyk() -> bytes:
    return encoded(Image.fromarray(noise(83, 64)).convert("CMYK"), "JPEG", quality=90)


def _grey_16_bit() -> bytes:
    grey_HW = np.random.default_rng(1).integers(0, 65536, (51, 66)).astype(np.uint16)
    return encoded(Image.fromarray(grey_HW), "PNG")


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED_BY_90
    return _photo(exif=exif)


def _interlaced() -> bytes:
    """Return an Adam7 PNG, which Pillow reads and does not write: seven passes, each row unfiltered."""
    pixels_HWC = noise(37, 29)
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in ADAM7 for row in pixels_HWC[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", 37, 29, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _huge() -> bytes:
    """Return 24 megapixels, flat with noise in one corner."""
    image = Image.new("RGB", (6000, 4000), (120, 90, 60))
    image.paste(Image.fromarray(noise(1500, 1000)), (4500, 3000))
    return encoded(image, "JPEG", quality=80)


HUGE = "huge"
FILES: dict[str, Callable[[], bytes]] = {
    "photo of a temple": lambda: real_photos()["china"].read_bytes(),
    "photo of a flower": lambda: real_photos()["flower"].read_bytes(),
    "portrait": lambda: real_photos()["hopper"].read_bytes(),
    "grey": lambda: encoded(Image.fromarray(noise(50, 75)).convert("L"), "JPEG"),
    "grey with alpha": _grey_with_alpha,
    "RGBA": _rgba,
    "palette": lambda: encoded(_palette(), "PNG"),
    "palette with transparency": lambda: encoded(_palette(), "PNG", transparency=bytes(range(0, 256, 8))),
    "GIF with a transparent colour": lambda: encoded(_palette(), "GIF", transparency=3),
    "two colours": _two_colours,
    "CMYK": _cmyk,
    "16 bit grey": _grey_16_bit,
    "rotated by EXIF": _rotated,
    "one pixel": lambda: _rgb(1, 1),
    "one row": lambda: _rgb(45, 1),
    "one column": lambda: _rgb(1, 52),
    "very wide": lambda: _rgb(403, 23),
    "very tall": lambda: _rgb(19, 300),
    "exactly the size": lambda: _rgb(224, 224),
    "one pixel wider": lambda: _rgb(225, 224),
    "one pixel less": lambda: _rgb(223, 224),
    "the resized size": lambda: _rgb(256, 256),
    "odd sides": lambda: _rgb(333, 251),
    HUGE: _huge,
    "progressive JPEG": lambda: _photo(progressive=True, quality=70),
    "interlaced PNG": _interlaced,
    "WebP": lambda: _photo(file_format="WEBP", quality=80),
}


@cache
def file_bytes(name: str) -> bytes:
    """Return one of `FILES`."""
    return FILES[name]()


@cache
def odd_image(name: str) -> Image.Image:
    """Return one of `FILES`, opened and loaded. Do not change it: it is made once."""
    return opened(file_bytes(name))
