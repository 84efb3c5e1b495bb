"""Paths in a recipe: found from where the recipe lies, and kept out of what leaves this machine.

A recipe can name three local things: a weights file, a local model (`hf:` directory or .pt2 program) and a
folder of labelled images. `resolve_paths` finds them from the recipe's folder; `portable` reduces them to
what may be published in a bundle.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from exporter.recipe.tree import NO_WEIGHTS_FILE, Recipe


def resolve_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every relative path taken from a folder and made absolute.

    An `hf:` model is a path when it says so itself (`hf:./folder`, `hf:/folder`); anything else is a name on
    the hub.
    """
    return _map_paths(recipe, lambda path: str((folder / os.path.expanduser(path)).absolute()))


def portable(recipe: Recipe) -> Recipe:
    """The recipe as a bundle stores it: no folder of this machine.

    Of a weights file and of a local model only the last name is left, so that both are looked for beside the
    recipe: copy them there, or give `--weights` or the model anew. The folder of labelled images is left out;
    a gate on accuracy stays, so whoever rebuilds gives `--data` or lifts the gate knowingly.
    """
    bare = _map_paths(recipe, _last_name)
    return replace(bare, accuracy=replace(bare.accuracy, data=None))


def _map_paths(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    model, accuracy = recipe.model, recipe.accuracy
    weights = model.weights if model.weights in NO_WEIGHTS_FILE else change(model.weights)
    data = None if accuracy.data is None else change(accuracy.data)
    return replace(
        recipe,
        model=replace(model, model=_map_model(model.model, change), weights=weights),
        accuracy=replace(accuracy, data=data),
    )


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
