"""What int8, fp8, options and slots are calibrated on: a user's images or texts, or what ships with the model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter.errors import UsageError
from exporter.models import LoadedModel, TextReader, training_images
from exporter.pipeline.contenders import as_input
from exporter.pipeline.plan import Planned
from exporter.recipe import Recipe
from exporter.targets import Array
from exporter.validation import (
    ImageSet,
    decode,
    default_workers,
    image_arrays,
    open_images,
    read_texts,
)


@dataclass(frozen=True, kw_only=True)
class CalibrationSet:
    """The images that something is calibrated on.

    Attributes:
        name: of the set.
        pixels_BCHW: uint8, cropped as the model takes them.
    """

    name: str
    pixels_BCHW: Array


def calibration_inputs(planned: Planned) -> dict[str, Array]:
    """The first images or texts, as the recipe's engines take them: (n, ...) by name of the input.

    Raises:
        UsageError: there are none, or none of them can be read.
    """
    recipe, model = planned.recipe, planned.model
    if model.takes_texts:
        return _texts(planned)
    images = calibration_set(planned, "precision", recipe.precision)
    (name,) = model.inputs
    assert model.preprocess is not None
    return {name: as_input(recipe, images.pixels_BCHW, model.preprocess)}


def _texts(planned: Planned) -> dict[str, Array]:
    """The first texts of a table; longer ones than the engines take are cut off."""
    recipe, model = planned.recipe, planned.model
    if recipe.calibration.data is None or model.tokenizer is None:
        raise UsageError(
            f"calibration: precision {recipe.precision} needs texts like those that will be served, and a model with "
            "a tokenizer; give a CSV file with a column text with --calibration FILE"
        )
    try:
        texts = read_texts(Path(recipe.calibration.data), None, labelled=False).texts
    except UsageError as error:
        raise UsageError(f"calibration.{error}") from error
    read = TextReader(model.tokenizer, model.example_input.shape[0], tuple(model.inputs), truncate=True)
    return dict(read(texts[: recipe.calibration.images]))


def calibration_set(planned: Planned, key: str, value: str) -> CalibrationSet:
    """The first images.

    Args:
        planned: the recipe says which set, and how many.
        key: of the recipe, that needs them; for messages.
        value: of that key.

    Raises:
        UsageError: there are none, or none of them can be read.
    """
    recipe, model = planned.recipe, planned.model
    preprocess = model.preprocess
    if preprocess is None:
        raise UsageError(f"{key}: {value} is calibrated on images, and {model.name} {model.why_no_photos}")
    images = _images(recipe, model, f"{key} {value}")
    positions = range(min(recipe.calibration.images, len(images.names)))
    chunks = decode(
        images, preprocess, positions=positions, chunk=32, workers=default_workers(len(positions))
    )
    pixels = [chunk.pixels_BCHW for chunk in chunks if len(chunk.pixels_BCHW)]
    if not pixels:
        raise UsageError(f"calibration: expected images, got none that can be read in {images.name}")
    return CalibrationSet(name=images.name, pixels_BCHW=np.concatenate(pixels))


def _images(recipe: Recipe, model: LoadedModel, wanted: str) -> ImageSet:
    if recipe.calibration.data is not None:
        try:
            return open_images(Path(recipe.calibration.data), None)
        except UsageError as error:
            raise UsageError(f"calibration.{error}") from error
    images_BHWC = training_images(recipe.model)
    if images_BHWC is None:
        raise UsageError(
            f"calibration: {wanted} needs images like those that will be served; "
            "give a folder of them with --calibration DIR"
        )
    return image_arrays(images_BHWC, None, name=f"the training images of {model.name}")
