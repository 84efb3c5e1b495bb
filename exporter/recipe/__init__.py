"""Recipes: what to build, and the gates that it has to pass; from YAML, Python or options, checked in one place."""

from exporter.recipe.keys import RecipeKey, field_keys, recipe_keys
from exporter.recipe.load import (
    check,
    load_recipe,
    override,
    read_recipe,
    recipe_from_mapping,
    recipe_to_mapping,
    recipe_to_yaml,
    yaml_value,
)
from exporter.recipe.names import default_name, merging_name
from exporter.recipe.paths import absolute, at_place, local_place, map_model_paths, portable, resolve_paths
from exporter.recipe.schema import recipe_schema
from exporter.recipe.tree import (
    NO_WEIGHTS_FILE,
    AccuracyGate,
    AgreementGate,
    Calibration,
    InputKind,
    Layout,
    OverflowGate,
    ParityGate,
    Recipe,
    SpeedGate,
    Validation,
    text_recipe,
)

__all__ = [
    "NO_WEIGHTS_FILE",
    "AccuracyGate",
    "AgreementGate",
    "Calibration",
    "InputKind",
    "Layout",
    "OverflowGate",
    "ParityGate",
    "Recipe",
    "RecipeKey",
    "SpeedGate",
    "Validation",
    "absolute",
    "at_place",
    "check",
    "default_name",
    "field_keys",
    "load_recipe",
    "local_place",
    "map_model_paths",
    "merging_name",
    "override",
    "portable",
    "read_recipe",
    "recipe_from_mapping",
    "recipe_keys",
    "recipe_schema",
    "recipe_to_mapping",
    "recipe_to_yaml",
    "resolve_paths",
    "text_recipe",
    "yaml_value",
]
