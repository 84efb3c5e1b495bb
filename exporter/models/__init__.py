"""Where models and weights come from: one file per source, the alias table, preprocessing.

In: a `ModelRequest`. Out: a `LoadedModel`, which `capture` takes.
"""

from exporter.models.alias_table import Alias
from exporter.models.load import aliases, load, shipped_images, ships_images, without_download
from exporter.models.loaded import ExampleInput, LoadedModel
from exporter.models.preprocess import Preprocess, crop_image, preprocess_image
from exporter.models.request import ModelRequest

__all__ = [
    "Alias",
    "ExampleInput",
    "LoadedModel",
    "ModelRequest",
    "Preprocess",
    "aliases",
    "crop_image",
    "load",
    "preprocess_image",
    "shipped_images",
    "ships_images",
    "without_download",
]
