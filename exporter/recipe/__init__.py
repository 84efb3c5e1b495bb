"""Recipes: what to build and what it has to prove; from YAML, Python or options, checked in one place."""

from exporter.recipe.load import (
    check,
    load_recipe,
    override,
    recipe_from_mapping,
    recipe_to_mapping,
    recipe_to_yaml,
    yaml_value,
)
from exporter.recipe.paths import portable, resolve_paths
from exporter.recipe.schema import recipe_schema
from exporter.recipe.tree import (
    NO_WEIGHTS_FILE,
    AccuracyGate,
    AgreementGate,
    Calibration,
    InputKind,
    Layout,
    ParityGate,
    Recipe,
    SpeedGate,
    Validation,
    default_name,
    merging_name,
    text_recipe,
)

__all__ = [
    "NO_WEIGHTS_FILE",
    "AccuracyGate",
    "AgreementGate",
    "Calibration",
    "InputKind",
    "Layout",
    "ParityGate",
    "Recipe",
    "SpeedGate",
    "Validation",
    "check",
    "default_name",
    "load_recipe",
    "merging_name",
    "override",
    "portable",
    "recipe_from_mapping",
    "recipe_schema",
    "recipe_to_mapping",
    "recipe_to_yaml",
    "resolve_paths",
    "text_recipe",
    "yaml_value",
]
