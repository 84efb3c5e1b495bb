"""From a recipe file, a mapping or overriding options to a checked `Recipe`, and from there back to YAML.

Where it stands on the road: the way in for `run` and for every command-line option, and the way out for the
`recipe.yaml` of a bundle. There is one check for all of them, the schema's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from exporter.errors import RecipeError, quoted
from exporter.models import ModelRequest
from exporter.recipe.complaints import describe_errors
from exporter.recipe.engine_documents import engine_options, engines_mapping, lowering_choices
from exporter.recipe.paths import resolve_paths
from exporter.recipe.schema import SCHEMA_VERSION, RecipeDocument, ScheduleDocument, ValidationDocument
from exporter.recipe.tree import (
    AccuracyGate,
    AgreementGate,
    Calibration,
    ParityGate,
    Recipe,
    SpeedGate,
    Validation,
)
from exporter.recipe.yaml_text import format_yaml, parse_yaml
from exporter.schedule import ScheduleRequest

MAX_BYTES = 1 << 20

_SCHEDULE_FORMS = ("r", "r_per_layer", "keep_per_layer")


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file.

    Relative paths in it (weights, a local model, what to validate on) are taken from the folder that the recipe
    lies in.

    Raises:
        RecipeError: the file is missing, unreadable, too large, not UTF-8, not plain YAML, or asks for
            something unknown or impossible; the line names the file and every YAML path.
    """
    return resolve_paths(read_recipe(path), Path(path).parent)


def read_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file, with its paths as they stand there: for a bundle's, which says where things lay.

    Raises:
        RecipeError: as `load_recipe` does.
    """
    path = Path(path)
    return recipe_from_mapping(parse_yaml(_read_text(path), str(path)), str(path))


def recipe_from_mapping(mapping: object, where: str) -> Recipe:
    """Check plain values (dicts, lists, scalars) and turn them into a recipe.

    Args:
        mapping: what a recipe file holds; only `model` is required.
        where: what the values came from, for messages.

    Raises:
        RecipeError: an unknown key, a wrong type or an impossible value.
    """
    if not isinstance(mapping, Mapping):
        got = "nothing" if mapping is None else f"a {type(mapping).__name__}"
        raise RecipeError(f"{where}: expected a mapping of recipe keys such as `model: vit_b16`, got {got}")
    if (odd := next(_keys_that_are_no_text(mapping), None)) is not None:
        raise RecipeError(f"{where}: expected keys in UTF-8, got {quoted(odd)}")
    try:
        return _recipe(RecipeDocument.model_validate(_plain(mapping)))
    except ValidationError as error:
        raise RecipeError(f"{where}: {describe_errors(error)}") from None


def check(recipe: Recipe, where: str = "recipe") -> Recipe:
    """The same recipe, after the checks that a file gets; for recipes that were built in Python.

    Raises:
        RecipeError: an impossible value; the line names its YAML path.
    """
    return override(recipe, {}, where)


def override(recipe: Recipe, values: Mapping[str, object], where: str = "options") -> Recipe:
    """A recipe with some values replaced, as command-line options do.

    A value that starts another form of schedule (`schedule.r`, `schedule.r_per_layer`,
    `schedule.keep_per_layer`) replaces the form that was there. Relative paths stay relative to the working
    directory.

    Args:
        recipe: the recipe to start from.
        values: by YAML path, such as `{"schedule.r": 8, "targets": ["onnx"]}`.
        where: what the values came from, for messages.

    Raises:
        RecipeError: an unknown path, a wrong type or an impossible value; the line names the YAML path.
    """
    mapping = recipe_to_mapping(recipe)
    schedule = mapping["schedule"]
    forms = [form for form in _SCHEDULE_FORMS if f"schedule.{form}" in values]
    if forms and forms[0] not in schedule:
        schedule.clear()
    if isinstance(mapping["model"], str):
        mapping["model"] = {"name": mapping["model"]}
    for path, value in values.items():
        _set(mapping, path, value, where)
    return recipe_from_mapping(mapping, where)


def yaml_value(text: str, where: str) -> object:
    """The value that a text stands for in a recipe: a number, true or false, null, a list in brackets, or text.

    Raises:
        RecipeError: it is not YAML.
    """
    parsed = parse_yaml(f"value: {text}", where)
    assert isinstance(parsed, dict)
    return parsed["value"]


def recipe_to_mapping(recipe: Recipe) -> dict[str, Any]:
    """Plain values of a recipe, every key written out, in the order of the documentation."""
    model = recipe.model
    return {
        "schema_version": SCHEMA_VERSION,
        "name": recipe.name,
        "model": _model_mapping(model),
        "weights": model.weights,
        "seed": model.seed,
        "tower": "both" if recipe.with_text else model.tower,
        "image_size": _plain(model.image_size),
        "method": recipe.method,
        "method_options": dict(recipe.method_options),
        "proportional_attention": recipe.proportional_attention,
        "schedule": _schedule_mapping(recipe.schedule),
        "input": recipe.input,
        "layout": recipe.layout,
        "batch": recipe.batch,
        "dynamic_batch": recipe.dynamic_batch,
        "precision": recipe.precision,
        "targets": list(recipe.targets),
        "prepare": recipe.prepare,
        "engines": _plain(engines_mapping(recipe.engines)),
        "lowering": dict(recipe.lowering),
        "calibration": asdict(recipe.calibration),
        "disable_passes": list(recipe.disable_passes),
        "parity": dict(vars(recipe.parity)),
        "validate": asdict(recipe.validate),
        "bench": asdict(recipe.bench),
    }


def recipe_to_yaml(recipe: Recipe) -> str:
    """YAML of a recipe with every default written out; reading it back gives an equal recipe.

    Paths are written as they stand in the recipe; see `portable` for a text that names no folder of this
    machine.
    """
    return format_yaml(recipe_to_mapping(recipe))


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise RecipeError(f"{path}: {'not a file' if path.exists() else 'no such recipe file'}")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None
    if len(data) > MAX_BYTES:
        raise RecipeError(f"{path}: expected a recipe of at most {MAX_BYTES} bytes; this file is larger")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte {data[error.start]:#04x} at {error.start}"
        raise RecipeError(f"{path}: expected UTF-8 text, got {byte}") from None


def _recipe(document: RecipeDocument) -> Recipe:
    return Recipe(
        model=ModelRequest(
            model=document.model.name,
            weights=document.weights,
            seed=document.seed,
            image_size=_frozen(document.image_size),
            tower="text" if document.tower == "text" else "image",
            options={name: _frozen(value) for name, value in document.model.options.items()},
            preprocess=document.model.preprocess,
        ),
        with_text=document.tower == "both",
        name=document.name,
        method=document.method,
        method_options=dict(document.method_options),
        proportional_attention=document.proportional_attention,
        schedule=_schedule(document.schedule),
        input=document.input,
        layout=document.layout,
        batch=document.batch,
        dynamic_batch=document.dynamic_batch,
        precision=document.precision,
        targets=tuple(document.targets),
        prepare=document.prepare,
        engines=engine_options(document.engines),
        lowering=lowering_choices(document.lowering),
        calibration=Calibration(**document.calibration.model_dump()),
        disable_passes=tuple(document.disable_passes),
        parity=ParityGate(**document.parity.model_dump()),
        validate=_validation(document.validation),
        bench=SpeedGate(**document.bench.model_dump()),
    )


def _model_mapping(model: ModelRequest) -> object:
    """The name alone, or a mapping where more is said."""
    if not model.options and model.preprocess is None:
        return model.model
    return {"name": model.model, "options": _plain(model.options), "preprocess": model.preprocess}


def _validation(document: ValidationDocument) -> Validation:
    values = document.model_dump()
    gates = {
        "accuracy": AccuracyGate(**values["accuracy"]),
        "agreement": AgreementGate(**values["agreement"]),
    }
    return Validation(**{**values, **gates})


def _schedule(document: ScheduleDocument) -> ScheduleRequest:
    return ScheduleRequest(
        kind=document.kind,
        r=document.r,
        align=document.align,
        r_per_layer=tuple(document.r_per_layer) or None,
        keep_per_layer=tuple(document.keep_per_layer) or None,
    )


def _schedule_mapping(schedule: ScheduleRequest) -> dict[str, Any]:
    """The keys of the form that a schedule uses, and whatever else was set to more than its default."""
    given = {key: value for key, value in vars(schedule).items() if value != getattr(ScheduleRequest, key)}
    if not given.keys() & {"r_per_layer", "keep_per_layer"}:
        given = {"kind": schedule.kind, "r": schedule.r, "align": schedule.align}
    return {key: _plain(value) for key, value in given.items()}


def _keys_that_are_no_text(tree: object) -> Iterator[str]:
    """Keys with a lone surrogate, which pydantic can neither take nor name."""
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        if isinstance(key, str) and any("\ud800" <= letter <= "\udfff" for letter in key):
            yield key
        yield from _keys_that_are_no_text(value)


def _set(mapping: dict[str, Any], path: str, value: object, where: str) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        inner = mapping.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{where}: {path}: {parent} holds one value, not keys")
        mapping = inner
    mapping[last] = value


def _frozen(value: Any) -> Any:
    """A list as a tuple, for a frozen tree."""
    return tuple(value) if isinstance(value, list) else value


def _plain(value: object) -> object:
    """Python's richer values (tuples, paths, read-only mappings) as what YAML would have given."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, PurePath) else value
