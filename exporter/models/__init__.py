"""Where models and weights come from: one file per source, the alias table, preprocessing.

In: a `ModelRequest`. Out: a `LoadedModel`, which `capture` takes.
"""

from exporter.models.alias_table import Alias
from exporter.models.checkpoint.claim import Claims
from exporter.models.load import aliases, load, without_download
from exporter.models.loaded import ClassNames, ExampleInput, LoadedModel, Tokenize
from exporter.models.preprocessing.image_modes import in_bytes
from exporter.models.preprocessing.pixels import crop_image, normalize, preprocess_image
from exporter.models.preprocessing.preprocess import PREPROCESS_FILE, Preprocess
from exporter.models.request import ImageSize, Lengths, ModelRequest, OptionValue, safe_name, size_text
from exporter.models.shipped.data import ShippedData, is_raced, shipped_data, ships_images, training_images
from exporter.models.texts import TOKENIZER_FILE, TextReader

__all__ = [
    "PREPROCESS_FILE",
    "TOKENIZER_FILE",
    "Alias",
    "Claims",
    "ClassNames",
    "ExampleInput",
    "ImageSize",
    "Lengths",
    "LoadedModel",
    "ModelRequest",
    "OptionValue",
    "Preprocess",
    "ShippedData",
    "TextReader",
    "Tokenize",
    "aliases",
    "crop_image",
    "in_bytes",
    "is_raced",
    "load",
    "normalize",
    "preprocess_image",
    "safe_name",
    "shipped_data",
    "ships_images",
    "size_text",
    "training_images",
    "without_download",
]
