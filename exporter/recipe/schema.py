"""The recipe's YAML as pydantic models and as JSON Schema, both made from the declared keys.

`load` checks plain values against `recipe_document()`; nothing else sees these models. Rules between keys that a
single value cannot break are here too.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING
from functools import cache
from inspect import cleandoc
from types import GenericAlias, UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    model_validator,
)

from exporter.forms import CALIBRATED, Forms
from exporter.recipe.keys import RecipeKey, declared_keys, field_keys, without_none
from exporter.recipe.tree import Recipe, TokenOptimizer
from exporter.recipe.value_types import READ_AS, refuse
from exporter.recipe_key import Range
from exporter.schedule import FORMS, ScheduleRequest
from exporter.targets import TARGETS, find_target

SCHEMA_VERSION = 1

_SCHEDULE_KEYS = tuple(dict.fromkeys(key for keys in FORMS.values() for key in keys))
_IN_PLACE_OF = ("method", "schedule")
_LEADING = {*FORMS, "drop_per_layer"}


class Document(BaseModel):
    """A mapping with known keys and strict types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _OneForm(Document):
    """A schedule: keys of one of its forms."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "anyOf": [{"required": [key]} for key in keys if key in _LEADING],
                    "properties": {other: False for other in _SCHEDULE_KEYS if other not in keys},
                }
                for keys in FORMS.values()
            ]
        }
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [key for key in _SCHEDULE_KEYS if key in self.model_fields_set]
        asked = [form for form, keys in FORMS.items() if form != "r" and _LEADING.intersection(keys, given)]
        if not asked and "r" not in given:
            raise refuse(f"expected one of {', '.join(FORMS)}, got none")
        if len(asked) > 1:
            raise refuse(f"expected one of {', '.join(FORMS)}, got {' and '.join(asked)}")
        form = asked[0] if asked else "r"
        extra = next((key for key in given if key not in FORMS[form]), None)
        if extra is not None:
            alone = (
                "stands alone"
                if len(FORMS[form]) == 1
                else f"stands with {' and '.join(FORMS[form][1:])} only"
            )
            raise refuse(f"{form} {alone}; remove {extra}")
        return self


class _Whole(Document):
    """A whole recipe."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentSchemas": {"token_optimizer": {"properties": dict.fromkeys(_IN_PLACE_OF, False)}}
        }
    )

    @model_validator(mode="after")
    def _one_reduction(self) -> Self:
        given = [name for name in _IN_PLACE_OF if name in self.model_fields_set]
        if given and "token_optimizer" in self.model_fields_set:
            raise refuse(
                f"token_optimizer stands in place of {' and '.join(_IN_PLACE_OF)}; remove {' and '.join(given)}"
            )
        return self


@cache
def recipe_document() -> type[Document]:
    """The model of a whole recipe file."""
    return _group((), Recipe)


@cache
def document_schema() -> dict[str, Any]:
    """JSON Schema of a recipe; shared, so not to be changed."""
    return recipe_document().model_json_schema()


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe file, with descriptions, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "exporter recipe",
        **{key: value for key, value in document_schema().items() if key != "title"},
    }


def contradiction(recipe: Recipe) -> str | None:
    """What two or more keys of a recipe make impossible together, in one line; None where nothing is."""
    if recipe.layout == "nhwc" and recipe.input != "uint8":
        return "layout: nhwc needs input: uint8; float images are nchw"
    if recipe.dynamic_batch and recipe.batch != 1:
        return f"batch: expected 1 or nothing with dynamic_batch: true, got {recipe.batch}"
    if recipe.model.tower == "text":
        if not recipe.schedule.is_dense:
            return "schedule: the text tower is exported as it is; expected r: 0 with tower: text"
        for key, given in {"input": recipe.input != "float", "image_size": recipe.model.image_size}.items():
            if given:
                return f"{key}: means nothing for token ids; remove it with tower: text"
    if recipe.bench.min_speedup is not None and recipe.bench.race is False:
        return "bench: min_speedup needs a race; remove race: false"
    if recipe.precision in CALIBRATED and (recipe.model.tower == "text" or recipe.with_text):
        return f"precision: {recipe.precision} is calibrated on images; expected tower: image"
    return None


def _version(version: int) -> int:
    if version != SCHEMA_VERSION:
        hint = "upgrade the exporter" if version > SCHEMA_VERSION else f"write {SCHEMA_VERSION}"
        raise refuse(f"this exporter reads schema version {SCHEMA_VERSION}, got {version}; {hint}")
    return version


def _named_model(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping):
        kind = "a list" if isinstance(value, list) else json.dumps(value)[:60]
        raise refuse(f"expected text, or a mapping of name, options and preprocess, got {kind}")
    return value


_Entry = tuple[Any, dict[str, Any]]  # a type, and the arguments of its `Field`


def _group(path: tuple[str, ...], kind: type) -> type[Document]:
    """The model of the keys below a path."""
    known = {key.path: key for key in declared_keys()}
    names = dict.fromkeys(other[len(path)] for other in known if other[:-1] == path)
    found = {name: _entry(known[*path, name]) for name in names}
    if not path:
        version = Annotated[int, AfterValidator(_version), Field(json_schema_extra={"const": SCHEMA_VERSION})]
        about = {"default": SCHEMA_VERSION, "description": "Version of this file format."}
        short: _Entry = options_document(TokenOptimizer), {"default": None}
        found = {"schema_version": (version, about), "token_optimizer": short, **found}
    return _model(kind, found)


def _entry(key: RecipeKey) -> _Entry:
    """One entry of a mapping."""
    about: dict[str, Any] = {"description": key.sentence}
    if key.is_group:
        group = _group(key.path, key.hint)
    elif key.name == "engines":
        group = _engines()
    elif key.key.values is Forms:
        group = _forms()
    else:
        return _read_as(key.key.values or key.hint), {**_default(key), **about}
    if key.name == "model":
        read = BeforeValidator(_named_model, json_schema_input_type=READ_AS[str] | group)
        return Annotated[group, read], about
    return group, {"default_factory": group.model_construct, **about}


def _default(key: RecipeKey) -> dict[str, Any]:
    """A list that is None in a recipe is left out in YAML, never null."""
    if key.default is MISSING:
        return {}
    if key.default is None and _is_list(key.hint):
        return {"default_factory": list}
    return {"default": list(key.default) if isinstance(key.default, tuple) else key.default}


def _is_list(hint: Any) -> bool:
    """Whether a type is a list or None; the sides of an image are none."""
    return int not in get_args(hint) and any(get_origin(part) is tuple for part in get_args(hint))


@cache
def _engines() -> type[Document]:
    """Options by target; a target that is left out, or null, has the defaults."""

    def entry(name: str) -> _Entry:
        return options_document(find_target(name).options) | None, {
            "default": None,
            "description": f"Of the target {name}.",
        }

    return _model("Engines", {name: entry(name) for name in TARGETS})


def options_document(kind: type) -> type[Document]:
    """The model of a dataclass of plain values, the options of a target or a method."""
    return _model(kind, {each.name: _entry(each) for each in field_keys(kind)})


@cache
def _forms() -> type[Document]:
    """The forms that were asked for; null is the target's own choice."""
    return _model(
        Forms,
        {
            each.name: (each.hint | None, {"default": None, "description": each.sentence})
            for each in field_keys(Forms)
        },
    )


def _model(kind: type | str, entries: Mapping[str, _Entry]) -> type[Document]:
    """A pydantic model with these entries; a name that Python or pydantic has taken becomes an alias."""
    name = kind if isinstance(kind, str) else kind.__name__
    about_all = None if isinstance(kind, str) else cleandoc(kind.__doc__ or "").partition("\n\n")[0]
    found = {}
    for key, (hint, about) in entries.items():
        attribute = key.replace("-", "_") + ("_" if hasattr(BaseModel, key) else "")
        found[attribute] = (hint, Field(alias=None if attribute == key else key, **about))
    base = (
        {ScheduleRequest: _OneForm, Recipe: _Whole}.get(kind, Document)
        if isinstance(kind, type)
        else Document
    )
    made: type[Document] = create_model(f"{name}Document", __base__=base, __doc__=about_all, **found)  # type: ignore[call-overload]
    return made


def _read_as(hint: Any) -> Any:
    """What YAML gives for a type: a list for a tuple, bounded numbers, text without control characters."""
    if hint in READ_AS:
        return READ_AS[hint]
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        notes = [_bounds(note) for note in parts[1:] if not isinstance(note, str)]
        kind = str if parts[0] is str and notes else _read_as(parts[0])  # a name is no free text
        return Annotated[(kind, *notes)] if notes else kind
    if origin in (Union, UnionType) and _is_list(hint):
        return Annotated[_read_as(without_none(hint)), Field(min_length=1)]
    if origin in (Union, UnionType):
        return Union[tuple(_read_as(part) for part in parts)]  # noqa: UP007 - of a tuple
    if origin is tuple:
        return GenericAlias(list, _read_as(parts[0]))
    return GenericAlias(dict, tuple(map(_read_as, parts))) if origin is Mapping else hint


def _bounds(note: Any) -> Any:
    """A range in the form of pydantic; other notes as they are."""
    if not isinstance(note, Range):
        return note
    return Field(ge=note.least, gt=note.above, le=note.most)
