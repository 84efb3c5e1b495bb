"""Images of more than 8 bits are scaled by their type or refused; none turns white or black in silence."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from exporter.models import Preprocess, crop_image
from exporter.models.preprocessing.image_modes import in_bytes
from tests.support.odd_images import encoded, noise, opened

RAMP_HW = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
BY_257 = np.array([[(int(value) + 128) // 257 for value in row] for row in RAMP_HW], np.uint8)
COLOUR = Image.fromarray(noise(32, 32))
UPPER_HALF = (RAMP_HW >> 8).astype(np.uint8)


def png_16_bit(pixels_HWC: npt.NDArray[np.uint16]) -> bytes:
    """Return a PNG that Pillow reads and does not write: 16 bits, one to four channels."""
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[pixels_HWC.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels_HWC)
    header = struct.pack(">IIBBBBB", pixels_HWC.shape[1], pixels_HWC.shape[0], 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def pnm_16_bit(pixels_HWC: npt.NDArray[Any], largest: int = 65535) -> bytes:
    height, width, channels = pixels_HWC.shape
    magic = {1: "P5", 3: "P6"}[channels]
    return f"{magic} {width} {height} {largest}\n".encode() + pixels_HWC.astype(">u2").tobytes()


def tiff_12_bit(grey_HW: npt.NDArray[Any]) -> bytes:
    """Return a TIFF of packed 12-bit samples, an even number per row; the pixels come before the directory."""
    high, low = grey_HW.reshape(-1, 2).T.astype(np.uint32)
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], axis=1).astype(np.uint8).tobytes()
    height, width = grey_HW.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    return start + packed + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def repeated(channels: int) -> npt.NDArray[np.uint16]:
    return np.repeat(RAMP_HW[:, :, None], channels, axis=2)


def plain(**changes: Any) -> Preprocess:
    fields: dict[str, Any] = {
        "image_size": (32, 32),
        "interpolation": "bicubic",
        "crop_fraction": 1.0,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    return Preprocess(**(fields | changes))


@pytest.mark.parametrize(
    ("data", "mode", "expected"),
    [
        pytest.param(lambda: png_16_bit(repeated(1)), "I;16", BY_257, id="grey PNG"),
        pytest.param(lambda: png_16_bit(repeated(3)), "RGB", UPPER_HALF, id="RGB PNG"),
        pytest.param(lambda: png_16_bit(repeated(4)), "RGBA", UPPER_HALF, id="RGBA PNG"),
        pytest.param(lambda: png_16_bit(repeated(2)), "RGBA", UPPER_HALF, id="grey PNG with alpha"),
        pytest.param(lambda: encoded(Image.fromarray(RAMP_HW), "TIFF"), "I;16", BY_257, id="grey TIFF"),
        pytest.param(
            lambda: encoded(Image.fromarray(RAMP_HW.astype(">u2")), "TIFF"),
            "I;16B",
            BY_257,
            id="big-endian TIFF",
        ),
        pytest.param(lambda: pnm_16_bit(repeated(1)), "I", BY_257, id="PGM"),
        pytest.param(lambda: pnm_16_bit(repeated(3)), "RGB", BY_257, id="PPM"),
        pytest.param(
            lambda: pnm_16_bit(repeated(1) >> 6, 1023),
            "I",
            np.rint((RAMP_HW >> 6) * (255 / 1023)),
            id="10-bit PGM",
        ),
        pytest.param(
            lambda: tiff_12_bit(RAMP_HW >> 4),
            "I;16",
            np.rint((RAMP_HW >> 4) * (255 / 4095)),
            id="12-bit TIFF",
        ),
        pytest.param(
            lambda: encoded(Image.fromarray(RAMP_HW), "JPEG2000", irreversible=False),
            "I;16",
            BY_257,
            id="JPEG 2000",
        ),
    ],
)
@pytest.mark.parametrize("to_rgb", ["first", "over_white", "last"])
def test_more_than_8_bits_are_scaled_by_their_type(
    data: Callable[[], bytes], mode: str, expected: npt.NDArray[Any], to_rgb: str
) -> None:
    image = opened(data())
    assert image.mode == mode, "what Pillow opens"
    if image.mode == "RGBA":
        image.putalpha(255)

    pixels_CHW = crop_image(image, plain(to_rgb=to_rgb))

    # Pillow scales a PNM's values to 65535 first, and rounds twice.
    assert np.abs(pixels_CHW.astype(int) - expected.astype(int)).max() <= (mode in ("I", "RGB"))
    assert len(np.unique(pixels_CHW)) == 256


def test_white_is_zero_is_inverted_as_pillow_inverts_8_bits() -> None:
    # On writing, Pillow inverts 8 bits as well, and leaves 16 as they are.
    wide, narrow = (
        opened(encoded(Image.fromarray(pixels), "TIFF", tiffinfo={262: 0}))
        for pixels in (65535 - RAMP_HW, BY_257)
    )
    assert (wide.mode, narrow.mode) == ("I;16", "L")

    np.testing.assert_array_equal(np.asarray(in_bytes(wide)), np.asarray(narrow))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.new("F", (8, 8), 0.5), "floating-point numbers", id="floats in memory"),
        pytest.param(
            opened(encoded(Image.new("F", (8, 8), 200.0), "TIFF")), "floating-point", id="float TIFF"
        ),
        pytest.param(opened(b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5)), "floating-point", id="PFM"),
        pytest.param(
            opened(encoded(Image.new("I", (8, 8), 70_000), "TIFF")), "32-bit integers", id="int TIFF"
        ),
        pytest.param(opened(encoded(Image.new("I", (8, 8), 255), "TIFF")), "32-bit", id="int TIFF of bytes"),
        pytest.param(Image.new("I", (8, 8)), "32-bit integers", id="integers in memory"),
    ],
)
@pytest.mark.parametrize("to_rgb", ["first", "over_white", "last"])
def test_numbers_without_a_stated_range_are_refused(image: Image.Image, expected: str, to_rgb: str) -> None:
    with pytest.raises(ValueError, match=f"{expected}.* nothing says .* save it with 8 or 16 bits"):
        crop_image(image, plain(to_rgb=to_rgb))


@pytest.mark.parametrize(
    ("image", "levels"),
    [
        pytest.param(COLOUR.convert("1"), 2, id="1 bit"),
        pytest.param(COLOUR.convert("L"), 100, id="grey"),
        pytest.param(COLOUR.convert("LA"), 100, id="grey with alpha"),
        pytest.param(COLOUR.quantize(64), 64, id="palette"),
        pytest.param(COLOUR.convert("L").convert("PA"), 100, id="palette with alpha"),
        pytest.param(COLOUR, 100, id="RGB"),
        pytest.param(COLOUR.convert("RGBA"), 100, id="RGBA"),
        pytest.param(COLOUR.convert("CMYK"), 100, id="CMYK"),
        pytest.param(COLOUR.convert("YCbCr"), 100, id="YCbCr"),
        pytest.param(COLOUR.convert("HSV"), 100, id="HSV"),
        pytest.param(Image.merge("LAB", COLOUR.split()), 100, id="LAB"),
    ],
)
def test_8_bits_and_fewer_stay_as_they_are(image: Image.Image, levels: int) -> None:
    assert in_bytes(image) is image
    assert len(np.unique(crop_image(image, plain()))) >= levels


def test_a_ramp_that_pillow_clips_would_be_noticed() -> None:
    clipped = np.asarray(Image.open(io.BytesIO(png_16_bit(repeated(1)))).convert("L"))

    assert len(np.unique(clipped)) < 256
    assert (clipped == 255).mean() > 0.9
