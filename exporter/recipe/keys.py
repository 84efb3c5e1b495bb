"""Every key of a recipe, as it is declared at the fields of `Recipe` and of the dataclasses that it holds.

All that knows of keys goes through this list: reading and writing YAML, the JSON Schema, the command line's options,
the documentation's table and the cache key of a sweep.
"""

import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from inspect import cleandoc
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from exporter.recipe.tree import Recipe
from exporter.recipe.value_types import OneOf
from exporter.recipe_key import Key

_ATTRIBUTE = re.compile(r"^ {4}(\w+): ((?:.*\n?)(?: {8}.*\n?)*)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class RecipeKey:
    """One key, or a group of keys.

    Attributes:
        path: in YAML, from the top: `("schedule", "r")`.
        attributes: in a `Recipe`, from the top.
        hint: the field's type with its annotations.
        kind: the type without annotations and without `| None`.
        default: the field's; MISSING for a key that must be given.
        description: a phrase without a capital.
        key: the rest of the declaration.
    """

    path: tuple[str, ...]
    attributes: tuple[str, ...]
    hint: Any
    kind: Any
    default: Any
    description: str
    key: Key

    @property
    def name(self) -> str:
        """The YAML path as one word: `schedule.r`."""
        return ".".join(self.path)

    @property
    def sentence(self) -> str:
        """The description with a capital and a full stop."""
        return f"{self.description[0].upper()}{self.description[1:]}."

    @property
    def is_group(self) -> bool:
        """Whether it holds keys, as `schedule` does; its hint is their dataclass."""
        return is_dataclass(self.hint)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that a value is one of; empty where it is anything else, or to list them would import torch."""
        return _choices(self.key.values or self.hint)

    def of(self, recipe: Recipe) -> Any:
        """The value in a recipe."""
        value: Any = recipe
        for attribute in self.attributes:
            value = getattr(value, attribute)
        return value


@cache
def declared_keys() -> tuple[RecipeKey, ...]:
    """Every key and every group of keys, in the order of the documentation."""
    return tuple(_declared(Recipe))


@cache
def recipe_keys() -> tuple[RecipeKey, ...]:
    """Every key that has a value of its own."""
    return tuple(each for each in declared_keys() if not each.is_group)


def field_keys(kind: type) -> list[RecipeKey]:
    """The fields of a dataclass as keys, with their places inside of it."""
    hints, kinds, told = get_type_hints(kind, include_extras=True), get_type_hints(kind), descriptions(kind)
    return [
        RecipeKey(
            path=(each.name,),
            attributes=(each.name,),
            hint=_unmarked(hints[each.name])[0],
            kind=without_none(kinds[each.name]),
            default=each.default if each.default_factory is MISSING else each.default_factory(),
            description=told.get(each.name, each.name),  # `python -OO` has no docstrings
            key=_unmarked(hints[each.name])[1],
        )
        for each in fields(kind)
    ]


def descriptions(kind: type) -> dict[str, str]:
    """What a dataclass's docstring says of its attributes."""
    found = _ATTRIBUTE.findall(cleandoc(kind.__doc__ or ""))
    return {name: " ".join(text.split()).removesuffix(".") for name, text in found}


def without_none(kind: Any) -> Any:
    """`int` for `int | None`; other unions as they are."""
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    return choices[0] if len(choices) == 1 and type(None) in get_args(kind) else kind


def _declared(kind: type) -> Iterator[RecipeKey]:
    for each in field_keys(kind):
        if each.key.path == "":
            continue
        if each.key.path is not None:
            each = replace(each, path=tuple(each.key.path.split(".")))
        yield each
        if not each.is_group:
            continue
        for inner in _declared(each.hint):
            placed = inner.path if inner.key.path is not None else each.path + inner.path
            part = inner.key.sweep or each.key.sweep
            yield replace(
                inner,
                path=placed,
                attributes=each.attributes + inner.attributes,
                key=replace(inner.key, sweep=part),
            )


def _unmarked(hint: Any) -> tuple[Any, Key]:
    """A field's type without its `Key`, and the key."""
    if get_origin(hint) is not Annotated:
        return hint, Key()
    kind, *notes = get_args(hint)
    key = next((note for note in notes if isinstance(note, Key)), Key())
    others = [note for note in notes if not isinstance(note, Key)]
    return (Annotated[(kind, *others)] if others else kind), key


def _choices(hint: Any) -> tuple[str, ...]:
    if isinstance(hint, type) and is_dataclass(hint):
        return tuple(f"{each.name}={'|'.join(each.choices)}" for each in field_keys(hint))
    if get_origin(hint) is Literal:
        return get_args(hint)
    for part in get_args(hint):
        if isinstance(part, OneOf):
            return part.names() if part.listed else ()
        if found := _choices(part):
            return found
    return ()
