"""Where the model of a bundle lies now: a bundle holds engines, not the model that they were made from.

Runs before a bundle's model is loaded again, by `validate`, `bench`, `report` and `run`. In:
the recipe that the bundle holds, with paths as they were typed. Out: the same recipe with paths that are there. That it
is still the same model is for the hash of the weights to say, once it is loaded.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from exporter.bundle.file_names import MANIFEST_FILE
from exporter.bundle.load import recorded_weights_sha256
from exporter.errors import ModelUnavailableError, quoted
from exporter.models import PREPROCESS_FILE
from exporter.recipe import (
    NO_WEIGHTS_FILE,
    Recipe,
    at_place,
    load_recipe,
    local_place,
    override,
    read_recipe,
)

MODEL_KEY, WEIGHTS_KEY, PREPROCESS_KEY = "model.name", "weights", "model.preprocess"
"""The recipe keys that `--model`, `--weights` and `--preprocess` stand for."""


def located(recipe: Recipe, bundle: Path, given: Collection[str] = ()) -> Recipe:
    """The recipe of a bundle with its local model and its weights file where they lie now.

    A path is looked for as it was typed: from the working directory, and then beside the bundle's folder (not inside
    it, where nothing but the bundle's own files is read). The first that exists is taken. Of a file that says how
    photos become the input, the bundle has its own copy.

    Args:
        recipe: of the bundle, with whatever the user replaced in it.
        bundle: its folder.
        given: the keys that the user replaced; such a path is taken as it is.

    Raises:
        ModelUnavailableError: nothing is there; the line says what was looked for, where, and how to name the place.
    """
    model, beside = recipe.model, _beside(bundle)
    name, weights = model.model, model.weights
    place = local_place(name)
    if MODEL_KEY not in given and place is not None:
        wanted = f"its model {quoted(name)}", f"--model {place[0] + 'FOLDER' if place[0] else 'FILE.pt2'}"
        name = at_place(place[0], _found(place[1], beside, bundle, wanted))
    if WEIGHTS_KEY not in given and weights not in NO_WEIGHTS_FILE:
        wanted = f"its weights file {quoted(weights)}", "--weights FILE"
        weights = _found(weights, beside, bundle, wanted)
    preprocess = model.preprocess
    if preprocess is not None and PREPROCESS_KEY not in given:
        preprocess = str(bundle / PREPROCESS_FILE)
    return replace(recipe, model=replace(model, model=name, weights=weights, preprocess=preprocess))


def recipe_to_build(path: str | Path, values: Mapping[str, object]) -> tuple[Recipe, str | None]:
    """The recipe that a file says, and the hash that its weights must have where the file lies in a bundle.

    Args:
        path: of the recipe.
        values: recipe keys to replace. Where they name other weights, no hash is expected.

    Raises:
        RecipeError: it is not a recipe, or a value is impossible.
        BundleError: the manifest beside it is damaged.
        ModelUnavailableError: it lies in a bundle, and the bundle's model is not where it was.
    """
    expected = recorded_weights_sha256(path)
    if expected is None:
        return override(load_recipe(path), values), None
    found = located(override(read_recipe(path), values), Path(path).parent, values)
    return found, None if WEIGHTS_KEY in values else expected


def _beside(bundle: Path) -> Path:
    """The folder that a bundle lies in; of a part of a bundle, the one that the whole lies in."""
    folder = bundle.absolute().parent
    while (folder / MANIFEST_FILE).is_file():
        folder = folder.parent
    return Path(os.path.relpath(folder))


def _found(path: str, beside: Path, bundle: Path, wanted: tuple[str, str]) -> str:
    for candidate in (Path(path).expanduser(), beside / Path(path).expanduser()):
        if os.path.exists(candidate):
            return str(candidate)
    places = "in the current folder"
    if beside.resolve() != Path.cwd():
        places += f' and in "{quoted(str(beside))}", where the bundle lies'
    what, how = wanted
    raise ModelUnavailableError(
        f'{bundle}: {what} is not here: looked for "{quoted(path)}" {places}; say where it lies now with {how}'
    )
