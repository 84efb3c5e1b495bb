"""Paths in a recipe: resolved from the recipe's folder, and kept out of what leaves this machine.

A recipe can name local things: a weights file, a local model (a folder of a library, or a .pt2 program), how photos
become its input, images and texts to validate on, images to calibrate on, files of engines. `resolve_paths` finds them
from the recipe's folder; `portable` reduces them to what may be published in a bundle.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from exporter.local_path import map_local_paths
from exporter.models import PREPROCESS_FILE, ModelRequest
from exporter.recipe.tree import NO_WEIGHTS_FILE, Recipe

_FOLDER_FORMS = ("timm:local-dir:", "open_clip:local-dir:")
_HUB = "hf:"


def resolve_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every relative path taken from a folder.

    A relative folder gives paths that are relative to the working directory, as if they had been typed there. An
    `hf:` model is a path when it says so itself (`hf:./folder`, `hf:/folder`); anything else is a name on the hub.
    """
    return _map_paths(recipe, lambda path: str(folder / os.path.expanduser(path)))


def portable(recipe: Recipe) -> Recipe:
    """The recipe as a bundle stores it: no folder of this machine.

    A weights file and a local model are named as they were typed where that is a relative path that leads downwards
    (`./my-clip`, `models/x.pt2`); of any other (an absolute one, one from the home folder, one that leaves through
    `..`) only the last name is left; a rebuild finds them by that name, or by `--model` and `--weights`. Of a
    preprocessing file the bundle has its own copy. Images to validate and to calibrate on and files of engines are left
    out; the gates stay, so a rebuild needs `--data` or has to lift the gate explicitly.
    """
    bare = _map_paths(recipe, _published, here=True)
    preprocess = PREPROCESS_FILE if bare.model.preprocess is not None else None
    return replace(
        bare,
        model=replace(bare.model, preprocess=preprocess),
        calibration=map_local_paths(bare.calibration, _nothing),
        engines={name: map_local_paths(options, _nothing) for name, options in bare.engines.items()},
        validate=replace(map_local_paths(bare.validate, _nothing), unlabelled=False, labels_in_order=False),
    )


def absolute(request: ModelRequest) -> ModelRequest:
    """The same model for a process that may run in another folder."""
    return map_model_paths(request, lambda path: str(Path(path).expanduser().absolute()), here=True)


def map_model_paths(
    request: ModelRequest, change: Callable[[str], str], *, here: bool = False
) -> ModelRequest:
    """A model request with its paths changed: of a local model, of its weights file, of its preprocessing."""
    model, weights, preprocess = request.model, request.weights, request.preprocess
    if (place := local_place(model, here=here)) is not None:
        model = at_place(place[0], change(place[1]))
    if weights not in NO_WEIGHTS_FILE:
        weights = _not_a_word(change(weights))
    return replace(
        request,
        model=model,
        weights=weights,
        preprocess=change(preprocess) if preprocess is not None else None,
    )


def local_place(model: str, *, here: bool = False) -> tuple[str, str] | None:
    """What the name of a local model starts with, and the path after it; None for a name of a library or a hub.

    Args:
        model: as it was typed.
        here: whether `hf:name` is a path as well where the working directory has such a folder, which is what the
            model's source would take it for.
    """
    name = model.removeprefix(_HUB)
    if name != model:
        return (_HUB, name) if _is_local(name) or (here and os.path.isdir(name)) else None
    for form in _FOLDER_FORMS:
        if model.startswith(form):
            return form, model.removeprefix(form)
    return ("", model) if model.endswith(".pt2") else None


def at_place(form: str, path: str) -> str:
    """The model's name for a path: `hf:./folder`, `timm:local-dir:folder`, `program.pt2`."""
    return f"{form}./{path}" if form == _HUB and not _is_local(path) else f"{form}{path}"


def _map_paths(recipe: Recipe, change: Callable[[str], str], *, here: bool = False) -> Recipe:
    return replace(
        recipe,
        model=map_model_paths(recipe.model, change, here=here),
        validate=map_local_paths(recipe.validate, change),
        calibration=map_local_paths(recipe.calibration, change),
        engines={name: map_local_paths(options, change) for name, options in recipe.engines.items()},
    )


def _nothing(_path: str) -> None:
    return None


def _is_local(name: str) -> bool:
    return name in (".", "..") or name.startswith(("./", "../", "~")) or Path(name).is_absolute()


def _published(path: str) -> str:
    """A path as others may read it: as it was typed where it leads downwards from here, or else its last name."""
    plain = os.path.normpath(path)
    if os.path.isabs(path) or path.startswith("~") or plain == "." or plain.split(os.sep)[0] == os.pardir:
        plain = os.path.basename(os.path.abspath(os.path.expanduser(path)))
    return _not_a_word(plain)


def _not_a_word(path: str) -> str:
    """A weights file that is called `pretrained` or `random`, so written that it still reads as a path."""
    return f"./{path}" if path in NO_WEIGHTS_FILE else path
