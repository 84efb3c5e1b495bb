"""Images that the ranges of int8 and fp8 are taken from: a folder that the user named, or what ships with the model."""

from pathlib import Path

import numpy as np

from exporter.errors import UsageError
from exporter.models import LoadedModel, training_images
from exporter.pipeline.contenders import as_input
from exporter.pipeline.plan import Planned
from exporter.recipe import Recipe
from exporter.targets import Array
from exporter.validation import ImageSet, decode, default_workers, image_arrays, open_images


def calibration_images(planned: Planned) -> Array:
    """The first images, as the recipe's engines take them: (n, ...).

    Raises:
        UsageError: there are none, or none of them can be read.
    """
    recipe, model = planned.recipe, planned.model
    preprocess = model.preprocess
    if preprocess is None:
        raise UsageError(
            f"precision: {recipe.precision} is calibrated on images, and {model.name} {model.why_no_photos}"
        )
    images = _images(recipe, model)
    positions = range(min(recipe.calibration.images, len(images.names)))
    chunks = decode(
        images, preprocess, positions=positions, chunk=32, workers=default_workers(len(positions))
    )
    pixels = [chunk.pixels_BCHW for chunk in chunks if len(chunk.pixels_BCHW)]
    if not pixels:
        raise UsageError(f"calibration: expected images, got none that can be read in {images.name}")
    return as_input(recipe, np.concatenate(pixels), preprocess)


def _images(recipe: Recipe, model: LoadedModel) -> ImageSet:
    if recipe.calibration.data is not None:
        try:
            return open_images(Path(recipe.calibration.data), None)
        except UsageError as error:
            raise UsageError(f"calibration.{error}") from error
    images_BHWC = training_images(recipe.model)
    if images_BHWC is None:
        raise UsageError(
            f"calibration: precision {recipe.precision} needs images like those that will be served; "
            "give a folder of them with --calibration DIR"
        )
    return image_arrays(images_BHWC, None, name=f"the training images of {model.name}")
