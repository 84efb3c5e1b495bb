"""Labelled images, prompts and captions that ship with a model and that its training never saw.

No library of models is imported.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.models.request import ModelRequest, resolve
from exporter.models.shipped.digit_texts import DIGIT_WORDS, TEMPLATES, caption_scans
from exporter.models.shipped.digits import enlarge_scans, held_out_scans, training_scans
from exporter.models.shipped.fashion import held_out_photos, training_photos


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


@dataclass(frozen=True, kw_only=True)
class _ShippedSet:
    """What ships with one model.

    Attributes:
        held_out: What it is measured on.
        training: Images that it was trained on, uint8 (n, H, W, 3) RGB.
        raced: Whether an export ends with a race, where the user does not say.
    """

    held_out: Callable[[], ShippedData]
    training: Callable[[], npt.NDArray[np.uint8]]
    raced: bool = False


def _photos() -> ShippedData:
    photos = held_out_photos()
    return ShippedData(images_BHWC=photos.images_BHWC, labels=photos.labels)


def _scans() -> ShippedData:
    scans = held_out_scans()
    return ShippedData(images_BHWC=scans.images_BHWC, labels=scans.labels)


def _captioned_scans() -> ShippedData:
    scans = held_out_scans()
    return ShippedData(
        images_BHWC=scans.images_BHWC,
        labels=scans.labels,
        class_names=DIGIT_WORDS,
        templates=TEMPLATES,
        captions=caption_scans(scans.scans_BHW, scans.labels),
    )


def _training_scans() -> npt.NDArray[np.uint8]:
    return enlarge_scans(training_scans())


_SETS = {
    "vit_digits": _ShippedSet(held_out=_scans, training=_training_scans),
    "vit_fashion": _ShippedSet(held_out=_photos, training=training_photos, raced=True),
    "clip_digits": _ShippedSet(held_out=_captioned_scans, training=_training_scans),
}


def ships_images(request: ModelRequest) -> bool:
    """Whether labelled images ship with the model that would be loaded.

    Raises:
        ModelUnavailableError: There is no such model.
    """
    return _set_of(request) is not None


def is_raced(request: ModelRequest) -> bool:
    """Whether an export of the model ends with a race, where the user does not say: `vit_fashion` is made to show one.

    Raises:
        ModelUnavailableError: There is no such model.
    """
    shipped = _set_of(request)
    return shipped is not None and shipped.raced


def shipped_data(request: ModelRequest) -> ShippedData | None:
    """What ships with the model that would be loaded, whichever of its towers is asked for, or None.

    Raises:
        ModelUnavailableError: There is no such model.
    """
    shipped = _set_of(request)
    return None if shipped is None else shipped.held_out()


def training_images(request: ModelRequest) -> npt.NDArray[np.uint8] | None:
    """Images that a shipped model was trained on, uint8 (n, H, W, 3) RGB: to calibrate on, never to measure on.

    Raises:
        ModelUnavailableError: There is no such model.
    """
    shipped = _set_of(request)
    return None if shipped is None else shipped.training()


def _set_of(request: ModelRequest) -> _ShippedSet | None:
    found = resolve(request)
    return _SETS[found.id] if found.source == "exporter" else None
