"""Paths in a recipe: found from where the recipe lies, and kept out of what leaves this machine.

A recipe can name local things: a weights file, a local model (`hf:` directory or .pt2 program), images and texts to
validate on, images to calibrate on, files of engines. `resolve_paths` finds them from the recipe's folder; `portable`
reduces them to what may be published in a bundle.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from exporter.models import PREPROCESS_FILE
from exporter.recipe.tree import NO_WEIGHTS_FILE, VALIDATION_FILES, Recipe


def resolve_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every relative path taken from a folder and made absolute.

    An `hf:` model is a path when it says so itself (`hf:./folder`, `hf:/folder`); anything else is a name on
    the hub.
    """
    return _map_paths(recipe, lambda path: str((folder / os.path.expanduser(path)).absolute()))


def portable(recipe: Recipe) -> Recipe:
    """The recipe as a bundle stores it: no folder of this machine.

    Of a weights file and of a local model only the last name is left, so that both are looked for beside the
    recipe: copy them there, or give `--weights` or the model anew. Of a preprocessing file the bundle has its own copy.
    What to validate and to calibrate on and files of engines are left out; the gates stay, so whoever rebuilds gives
    `--data` or lifts the gate knowingly.
    """
    unfilled = replace(
        recipe,
        calibration=replace(recipe.calibration, data=None),
        engines=_map_engines(recipe.engines, lambda _: None),
    )
    bare = _map_paths(unfilled, _last_name)
    preprocess = PREPROCESS_FILE if bare.model.preprocess is not None else None
    nothing: dict[str, Any] = dict.fromkeys(VALIDATION_FILES)
    return replace(
        bare,
        model=replace(bare.model, preprocess=preprocess),
        validate=replace(bare.validate, unlabelled=False, labels_in_order=False, **nothing),
    )


def _map_paths(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    model = recipe.model
    weights = model.weights if model.weights in NO_WEIGHTS_FILE else change(model.weights)
    files = {key: getattr(recipe.validate, key) for key in VALIDATION_FILES}
    preprocess = change(model.preprocess) if model.preprocess is not None else None
    changed: dict[str, Any] = {key: change(path) for key, path in files.items() if path is not None}
    calibration = recipe.calibration
    images = change(calibration.data) if calibration.data is not None else None
    return replace(
        recipe,
        model=replace(model, model=_map_model(model.model, change), weights=weights, preprocess=preprocess),
        validate=replace(recipe.validate, **changed),
        calibration=replace(calibration, data=images),
        engines=_map_engines(recipe.engines, change),
    )


def _map_engines(engines: Mapping[str, Any], change: Callable[[str], str | None]) -> dict[str, Any]:
    """Options with their paths changed: the fields whose metadata say `path`."""
    return {
        name: replace(
            options,
            **{
                each.name: change(getattr(options, each.name))
                for each in fields(options)
                if each.metadata.get("path") and getattr(options, each.name) is not None
            },
        )
        for name, options in engines.items()
    }


def _map_model(model: str, change: Callable[[str], str]) -> str:
    name = model.removeprefix("hf:")
    if name != model and _is_local(name):
        changed = change(name)
        return f"hf:{changed}" if _is_local(changed) else f"hf:./{changed}"
    return change(model) if model.endswith(".pt2") else model


def _is_local(name: str) -> bool:
    return name in (".", "..") or name.startswith(("./", "../", "~")) or Path(name).is_absolute()


def _last_name(path: str) -> str:
    """The last name of a path, so written that it still reads as a path."""
    name = os.path.basename(os.path.abspath(os.path.expanduser(path)))
    return f"./{name}" if name in NO_WEIGHTS_FILE else name
