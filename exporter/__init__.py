"""A compiler that makes Vision Transformers and CLIP encoders cheaper to serve by merging tokens.

>>> import exporter
>>> recipe = exporter.load_recipe("recipes/digits/vit_digits_r4_onnx.yaml")
>>> bundle = exporter.export(recipe, "artifacts/digits")
>>> outputs = exporter.load_bundle("artifacts/digits").runner("onnx")(images)
"""

import importlib
from typing import TYPE_CHECKING, Any

from exporter.version import __version__ as __version__

if TYPE_CHECKING:
    from exporter.bundle import Bundle as Bundle
    from exporter.bundle import load_bundle as load_bundle
    from exporter.errors import ExportError as ExportError
    from exporter.models import ModelRequest as ModelRequest
    from exporter.pipeline.export import export as export
    from exporter.pipeline.optimize import optimize as optimize
    from exporter.recipe import Recipe as Recipe
    from exporter.recipe import load_recipe as load_recipe
    from exporter.schedule import ScheduleRequest as ScheduleRequest

_HOME = {
    "Bundle": "exporter.bundle",
    "ExportError": "exporter.errors",
    "ModelRequest": "exporter.models",
    "Recipe": "exporter.recipe",
    "ScheduleRequest": "exporter.schedule",
    "export": "exporter.pipeline",
    "load_bundle": "exporter.bundle",
    "load_recipe": "exporter.recipe",
    "optimize": "exporter.pipeline",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name on first use: opening a bundle does not need torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
