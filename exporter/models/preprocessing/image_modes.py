"""Images of more than 8 bits per channel: scaled to bytes by what their type says, or refused.

Applied to an opened image before anything else is done with its pixels. Pillow's
own conversion clips: in 16 bits all but the darkest 1/256 becomes white, and of floats from 0 to 1 all is black.

| what Pillow opens | becomes |
|---|---|
| 16-bit grey (`I;16`) | bytes: v / 257, rounded |
| 12-bit grey TIFF (`I;16` as well) | bytes: v * 255 / 4095, rounded |
| 16-bit grey TIFF in which 0 is white | the same, inverted |
| 16-bit grey PNM, which Pillow opens as 32-bit integers (`I`) scaled to 0 to 65535 | bytes: v / 257, rounded |
| 16-bit colour or transparency (PNG, TIFF, PNM) | Pillow makes bytes of it itself: the upper half of each value |
| other 32-bit integers (`I`), and floats (`F`) | refused: nothing says from where to where they go |
| the rest has 8 bits or fewer per channel | stays as it is |
"""

import numpy as np
from PIL import Image

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_WHITE_IS_ZERO = 0  # Pillow inverts such images of 8 bits itself
_FULL_RANGE_FORMATS = ("PNG", "PPM")  # of mode I: 0 to 65535 by the format, or scaled to that by Pillow


def in_bytes(image: Image.Image) -> Image.Image:
    """The image with at most 8 bits per channel.

    Args:
        image: As Pillow opens it, of any mode.

    Returns:
        A grey image (`L`) where it had more bits, else the image itself.

    Raises:
        ValueError: The image has numbers whose range nothing states.
    """
    if image.mode.startswith("I;16"):
        return _scaled(image, largest=4095 if _tag(image, _BITS_PER_SAMPLE) == 12 else 65535)
    if image.mode == "I" and image.format in _FULL_RANGE_FORMATS:
        return _scaled(image, largest=65535)
    if image.mode in ("I", "F"):
        what = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise ValueError(f"{what}, and nothing says which are black and white: save it with 8 or 16 bits")
    return image


def _scaled(image: Image.Image, *, largest: int) -> Image.Image:
    grey_HW = np.asarray(image).astype(np.float64)
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey_HW = largest - grey_HW
    return Image.fromarray(np.rint(grey_HW * (255 / largest)).astype(np.uint8))


def _tag(image: Image.Image, number: int) -> object:
    """What a TIFF states; the first of several values, None where it states nothing or the file is no TIFF."""
    value = getattr(image, "tag_v2", {}).get(number)
    return next(iter(value), None) if isinstance(value, tuple) else value
