"""From a recipe file, a mapping or overriding options to a checked `Recipe`, and from there back to YAML.

`run` and every command-line option read recipes here, and the `recipe.yaml` of a bundle is written here. One schema
checks them all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pydantic import ValidationError

from exporter.errors import LONGEST_MESSAGE, RecipeError, quoted
from exporter.recipe.error_messages import describe_errors
from exporter.recipe.keys import field_keys, recipe_keys
from exporter.recipe.method_options import wrong_option
from exporter.recipe.paths import resolve_paths
from exporter.recipe.schema import SCHEMA_VERSION, contradiction, recipe_document
from exporter.recipe.tree import Recipe
from exporter.recipe.yaml_text import format_yaml, parse_yaml
from exporter.schedule import FORMS, ScheduleRequest
from exporter.targets import find_target

T = TypeVar("T")

MAX_BYTES = 1 << 20


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file.

    Relative paths in it (weights, a local model, images to validate on) are taken from the recipe's folder.

    Raises:
        RecipeError: the file is missing, unreadable, too large, not UTF-8, not plain YAML, or asks for
            something unknown or impossible; the line names the file and every YAML path.
    """
    return resolve_paths(read_recipe(path), Path(path).parent)


def read_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file without resolving its paths; for the recipe of a bundle, which may have moved.

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
        document = recipe_document().model_validate(_plain(mapping))
    except ValidationError as error:
        raise RecipeError(f"{where}: {describe_errors(error)}") from None
    recipe = _recipe(document.model_dump(by_alias=True))
    if problem := contradiction(recipe) or wrong_option(recipe):
        raise RecipeError(f"{where}: {quoted(problem, LONGEST_MESSAGE)}")
    return recipe


def check(recipe: Recipe, where: str = "recipe") -> Recipe:
    """The same recipe, after the checks that a file gets; for recipes that were built in Python.

    Raises:
        RecipeError: an impossible value; the line names its YAML path.
    """
    return override(recipe, {}, where)


def override(recipe: Recipe, values: Mapping[str, object], where: str = "options") -> Recipe:
    """A recipe with some values replaced, as command-line options do.

    A value that starts another form of schedule, such as `schedule.r_per_layer`, replaces the form that was there.
    Relative paths stay relative to the working directory.

    Args:
        recipe: the recipe to start from.
        values: by YAML path, such as `{"schedule.r": 8, "targets": ["onnx"]}`.
        where: what the values came from, for messages.

    Raises:
        RecipeError: an unknown path, a wrong type or an impossible value; the line names the YAML path.
    """
    mapping = recipe_to_mapping(recipe)
    schedule = mapping.get("schedule", {})  # of an adaptive recipe, its token_optimizer says it
    for form, keys in FORMS.items():
        starts = f"schedule.{form}" in values or (
            form == "r_per_layer" and "schedule.drop_per_layer" in values
        )
        if starts and not schedule.keys() & set(keys) - {"at"}:
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
    mapping: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    for key in recipe_keys():
        _put(mapping, key.path, _plain(key.of(recipe)))
    if not mapping["model"]["options"] and mapping["model"]["preprocess"] is None:
        mapping["model"] = mapping["model"]["name"]
    if recipe.with_text:
        mapping["tower"] = "both"
    mapping["engines"] = dict(sorted(mapping["engines"].items()))
    mapping["schedule"] = _schedule_mapping(mapping["schedule"])
    if recipe.adaptive:
        short = {"method": mapping.pop("method"), **mapping.pop("schedule"), "adaptive": True}
        return {**mapping, "token_optimizer": short}
    return mapping


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


def _recipe(values: Mapping[str, Any]) -> Recipe:
    """The recipe of checked values."""
    fields: dict[str, Any] = {}
    if (short := values["token_optimizer"]) is not None:
        schedule = {**values["schedule"], "reduction_ratio": short["reduction_ratio"]}
        values = {**values, "method": short["method"], "schedule": schedule}
        fields["adaptive"] = short["adaptive"]
    for key in recipe_keys():
        value: Any = values
        for part in key.path:
            value = value[part]
        _put(fields, key.attributes, _held(value) if value != [] else key.default)
    given = values["engines"].items()
    fields["engines"] = {
        name: find_target(name).options(**_held(options)) for name, options in given if options is not None
    }
    fields["lowering"] = {name: form for name, form in values["lowering"].items() if form is not None}
    if values["tower"] == "both":
        fields["with_text"], fields["model"]["tower"] = True, "image"
    return _constructed(Recipe, fields)


def _constructed(kind: type[T], fields: Mapping[str, Any]) -> T:
    """A dataclass of values, and of mappings for the dataclasses that it holds."""
    groups = {each.name: each.hint for each in field_keys(kind) if each.is_group}
    return kind(
        **{
            name: _constructed(groups[name], value) if name in groups else value
            for name, value in fields.items()
        }
    )


def _schedule_mapping(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the form that a schedule uses, and whatever else was set to more than its default."""
    defaults = vars(ScheduleRequest())
    given = {key: value for key, value in schedule.items() if value != defaults[key]}
    if given.keys() - set(FORMS["r"]):
        return given
    return {key: schedule[key] for key in ("kind", "r", "align")} | given


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


def _put(tree: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Sets a value in nested mappings, which are made as need be."""
    for parent in path[:-1]:
        tree = tree.setdefault(parent, {})
    tree[path[-1]] = value


def _held(value: Any) -> Any:
    """Lists as tuples, for a frozen tree."""
    if isinstance(value, dict):
        return {key: _held(inner) for key, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _plain(value: object) -> object:
    """Python's richer values (tuples, paths, read-only mappings, options of engines) as what YAML would have given."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, PurePath) else value
