"""The recipe's keys that are made from other rooms' dataclasses: each target's options, and the lowering.

A target's options are a frozen dataclass of plain values; its fields become keys of `engines.TARGET`, so that a new
option is written down once.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from pydantic import Field, create_model

from exporter.forms import Forms
from exporter.recipe.document import Document
from exporter.recipe.vocabulary import TARGETS
from exporter.targets import find_target

_ATTRIBUTE = re.compile(r"^ {4}(\w+): ((?:.*\n?)(?: {8}.*\n?)*)", re.MULTILINE)


def _keys(options: type) -> dict[str, Any]:
    """Fields of a pydantic model: name, type, default and description of every field of a dataclass."""
    hints = get_type_hints(options)
    told = {
        name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(cleandoc(options.__doc__ or ""))
    }
    return {
        each.name: (_as_read(hints[each.name]), Field(default=each.default, description=told[each.name]))
        for each in fields(options)
    }


def _as_read(hint: Any) -> Any:
    """What YAML gives for a type: a list where Python has a tuple."""
    return list[hint.__args__[0]] if get_origin(hint) is tuple else hint


if TYPE_CHECKING:
    EnginesDocument = Document
    FormsDocument = Document
else:
    EnginesDocument = create_model(
        "EnginesDocument",
        __base__=Document,
        __doc__="Options of the engines; what is not given has the target's default.",
        **{
            name.replace("-", "_"): (
                create_model(
                    f"{find_target(name).options.__name__}Document",
                    __base__=Document,
                    __doc__=find_target(name).options.__doc__,
                    **_keys(find_target(name).options),
                )
                | None,
                Field(default=None, alias=name, description=f"Of the target {name}."),
            )
            for name in TARGETS
        },
    )
    FormsDocument = create_model(
        "FormsDocument",
        __base__=Document,
        __doc__="How the program spells what has several spellings; null is the target's own choice.",
        **{
            name: (hint | None, Field(default=None, description=key.description))
            for name, (hint, key) in _keys(Forms).items()
        },
    )


def engine_options(document: Document) -> dict[str, Any]:
    """Options that were given, by target, each in its own type."""
    return {
        name: find_target(name).options(**{key: _as_held(value) for key, value in given.items()})
        for name, given in document.model_dump(by_alias=True).items()
        if given is not None
    }


def engines_mapping(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `engines` that stand for these options."""
    return {name: asdict(options[name]) for name in sorted(options)}


def lowering_choices(document: Document) -> dict[str, str]:
    """The forms that were asked for."""
    return {name: form for name, form in document.model_dump().items() if form is not None}


def _as_held(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
