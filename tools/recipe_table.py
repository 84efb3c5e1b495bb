"""Writes docs/recipe.md, the table of every recipe key, from the keys' declarations: `python -m tools.recipe_table`."""

import json
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path

from exporter.recipe import RecipeKey, recipe_keys
from exporter.recipe.error_messages import expected_at
from exporter.recipe.keys import field_keys
from exporter.targets import TARGETS, find_target

FILE = Path(__file__).resolve().parents[1] / "docs" / "recipe.md"

HEAD = """# Recipe keys and options

Every key of a recipe, what it may be, and the option of the command line that sets it. A recipe needs no more than
`model`; `python -m exporter recipe-schema` prints the same as JSON Schema, for editors. Relative paths in a recipe are
taken from the folder that the recipe is in; relative paths in options, from the working directory.

`token_optimizer: {method: tome, reduction_ratio: 0.3}` is short for `method: tome` with
`schedule: {reduction_ratio: 0.3}`.

This page is written by `python -m tools.recipe_table`; a key is declared in `exporter/recipe/tree.py` or in the request
or options that it belongs to.

| key | value | default | option | meaning |
|---|---|---|---|---|
"""


def page() -> str:
    """The text of docs/recipe.md."""
    return HEAD + "\n".join(_rows()) + "\n"


def _rows() -> Iterator[str]:
    for key in recipe_keys():
        if key.name != "engines":
            yield _row(key, key.path, key.key.option or "")
            continue
        for target in TARGETS:
            for inner in field_keys(find_target(target).options):
                yield _row(inner, ("engines", target, inner.name), "--engine-option")


def _row(key: RecipeKey, path: tuple[str, ...], option: str) -> str:
    default = "required" if key.default is MISSING else f"`{json.dumps(key.default)}`"
    spelled = f"`{option}`" if option else ""
    cells = (f"`{'.'.join(path)}`", expected_at(path), default, spelled, key.sentence)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
