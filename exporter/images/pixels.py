"""An image as a model's own preprocessing crops it, or the reason why it cannot be read."""

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from exporter.errors import ExportError, InternalError
from exporter.models import Preprocess, crop_image

LONGEST_REASON = 120


def pixels_or_reason(
    opened: Callable[[], Image.Image], preprocess: Preprocess
) -> npt.NDArray[np.uint8] | str:
    """The pixels (C, H, W) uint8 of an image, or why there are none: one short line that holds no path.

    Args:
        opened: opens the image.
        preprocess: of the model.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damage that it can read past
            return crop_image(opened(), preprocess)
    except (ExportError, InternalError):
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image of a known format"
    text = " ".join(str(error).split())
    return text[:LONGEST_REASON] if text else type(error).__name__
