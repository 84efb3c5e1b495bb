"""Labelled images, prompts and captions that ship with a model and that its training never saw.

No library of models is imported.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.models.request import ModelRequest, resolve
from exporter.models.shipped.digit_texts import DIGIT_WORDS, TEMPLATES, caption_scans
from exporter.models.shipped.digits import enlarge_scans, held_out_scans, training_scans


@dataclass(frozen=True, kw_only=True)
class ShippedData:
    """What a model can be measured on. The three kinds of text are for two-tower models.

    Attributes:
        images_BHWC: uint8, (n, H, W, 3), RGB.
        labels: int64, (n,), the class of each image.
        class_names: By label; None for a model that gives logits.
        templates: Prompts with one `{}` for a class name.
        captions: One per image; images may share one. None for a model without texts.
    """

    images_BHWC: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...] | None = None
    templates: tuple[str, ...] = ()
    captions: tuple[str, ...] | None = None


def ships_images(request: ModelRequest) -> bool:
    """Whether labelled images ship with the model that would be loaded.

    Raises:
        ModelUnavailableError: There is no such model.
    """
    return resolve(request).source == "exporter"


def shipped_data(request: ModelRequest) -> ShippedData | None:
    """What ships with the model that would be loaded, whichever of its towers is asked for, or None.

    Raises:
        ModelUnavailableError: There is no such model.
    """
    if not ships_images(request):
        return None
    held_out = held_out_scans()
    if resolve(request).id != "clip_digits":
        return ShippedData(images_BHWC=held_out.images_BHWC, labels=held_out.labels)
    return ShippedData(
        images_BHWC=held_out.images_BHWC,
        labels=held_out.labels,
        class_names=DIGIT_WORDS,
        templates=TEMPLATES,
        captions=caption_scans(held_out.scans_BHW, held_out.labels),
    )


def training_images(request: ModelRequest) -> npt.NDArray[np.uint8] | None:
    """Images that a shipped model was trained on, uint8 (n, H, W, 3) RGB: to calibrate on, never to measure on.

    Raises:
        ModelUnavailableError: There is no such model.
    """
    return enlarge_scans(training_scans()) if ships_images(request) else None
