"""An input of any channels as a picture that a page can show.

Shape suffixes: H height, W width, C channels, 3 the colours.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def visible(pixels_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Colours for the eye: three channels are red, green and blue, and a fourth is how opaque they are, over white.

    Any other number has no colours of its own: the mean of the channels is shown as gray.

    Args:
        pixels_HWC: bytes.

    Returns:
        (H, W, 3) bytes.
    """
    channels = pixels_HWC.shape[2]
    if channels == 3:
        return np.ascontiguousarray(pixels_HWC)
    if channels == 4:
        opacity_HW1 = pixels_HWC[:, :, 3:] / 255.0
        return _rounded(pixels_HWC[:, :, :3] * opacity_HW1 + 255 * (1 - opacity_HW1))
    return _rounded(pixels_HWC.mean(axis=2, keepdims=True).repeat(3, axis=2))


def _rounded(values_HW3: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = np.rint(values_HW3).astype(np.uint8)
    return pixels
