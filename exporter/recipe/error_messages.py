"""What is wrong with a recipe, in one line: `schedule.r: expected an integer >= 0, got "eight"`.

`load` puts these words for pydantic's findings into a `RecipeError`. What was expected is worded from the JSON Schema,
so that messages, editors and checks cannot disagree.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from exporter.errors import nearest
from exporter.recipe.schema import document_schema

SHOWN = 3

_Fragment = Mapping[str, Any]


def describe_errors(error: ValidationError) -> str:
    """Every error in a recipe, the first few in full and the rest as a count."""
    messages = [_message(found) for found in error.errors()]
    more = f"; and {len(messages) - SHOWN} more" if len(messages) > SHOWN else ""
    return "; ".join(messages[:SHOWN]) + more


def expected_at(path: tuple[int | str, ...]) -> str:
    """What a recipe takes at a place, such as `an integer >= 0 or null`."""
    return _expected(_fragment_at(path))


def describe_value(path: str, fragment: Mapping[str, Any], given: object) -> str:
    """What is wrong with one value, of which a fragment of JSON Schema says what was expected."""
    return f"{path}: expected {_expected(fragment)}, got {_shown(given)}"


def _message(found: ErrorDetails) -> str:
    kind, location = found["type"], found["loc"]
    path = _path(location)
    if kind == "refused":
        return f"{path}: {found['msg']}" if path else found["msg"]
    if kind == "extra_forbidden":
        siblings = _fragment_at(location[:-1]).get("properties", {})
        return f"{path}: unknown key.{nearest(str(location[-1]), siblings)}"
    fragment = _fragment_at(location)
    expected = f"at most {fragment['maximum']}" if kind == "less_than_equal" else _expected(fragment)
    if kind == "missing":
        return f"{path}: missing; expected {expected}"
    return f"{path or 'recipe'}: expected {expected}, got {_shown(found['input'])}"


def _path(location: tuple[int | str, ...]) -> str:
    """`("schedule", "r_per_layer", 3)` as `schedule.r_per_layer[3]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{str(part)[:60]}"
    return text.removeprefix(".")


def _fragment_at(location: tuple[int | str, ...]) -> _Fragment:
    """The part of the JSON Schema that describes the value at a location."""
    fragment = _resolved(document_schema())
    for part in location:
        if isinstance(part, int):
            fragment = _resolved(fragment.get("items", {}))
        else:
            known = _mapping(fragment).get("properties", {})
            fragment = _resolved(known.get(part, fragment.get("additionalProperties") or {}))
    return fragment


def _mapping(fragment: _Fragment) -> _Fragment:
    """The mapping among several choices: `model` is a name, or a mapping that says more."""
    choices = map(_resolved, fragment.get("anyOf", ()))
    return next((choice for choice in choices if "properties" in choice), fragment)


def _resolved(fragment: _Fragment) -> _Fragment:
    """Follows a reference, and steps through `or null`, which is noted as `nullable`."""
    if "$ref" in fragment:
        return _resolved(document_schema()["$defs"][fragment["$ref"].rpartition("/")[2]])
    choices = [choice for choice in fragment.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        return {**_resolved(choices[0]), "nullable": True}
    return fragment


def _expected(fragment: _Fragment) -> str:
    """A fragment of JSON Schema in words, such as `an integer >= 0 or null`."""
    return _worded(fragment) + (" or null" if fragment.get("nullable") else "")


def _worded(fragment: _Fragment) -> str:
    if "enum" in fragment:
        return "one of " + ", ".join(fragment["enum"])
    if isinstance(fragment.get("const"), str):
        return str(fragment["const"])
    if "anyOf" in fragment:
        shared = {key: value for key, value in fragment.items() if key != "anyOf"}
        return " or ".join(_worded({**shared, **_resolved(choice)}) for choice in fragment["anyOf"])
    kind = fragment.get("type")
    if isinstance(kind, list):
        return " or ".join(_worded({"type": each}) for each in kind)
    if kind in ("integer", "number"):
        return ("an integer" if kind == "integer" else "a number") + _bounds(fragment)
    if kind == "array":
        least = ", each" if not fragment.get("minItems") else " with at least one entry, each"
        return f"a list{least} {_expected(_resolved(fragment.get('items', {})))}"
    if kind == "object":
        values = fragment.get("additionalProperties")
        return (
            f"a mapping of names, each to {_expected(_resolved(values))}"
            if values
            else "a mapping of keys to values"
        )
    if "pattern" in fragment:
        return "a folder name of at most 100 letters, digits, dots, dashes and underscores"
    return {"boolean": "true or false", "string": "text", "null": "null"}.get(str(kind), "another value")


def _bounds(fragment: _Fragment) -> str:
    low, high = fragment.get("minimum"), fragment.get("maximum")
    if "exclusiveMinimum" in fragment:
        return f" > {fragment['exclusiveMinimum']:g}" + ("" if high is None else f" and <= {high:g}")
    if low is None:
        return ""
    return f" >= {low:g}" if high is None or fragment["type"] == "integer" else f" from {low:g} to {high:g}"


def _shown(given: object) -> str:
    if isinstance(given, Mapping):
        return "a mapping"
    if isinstance(given, list | tuple):
        return "a list" if given else "an empty list"
    if given is None or isinstance(given, bool | int | float | str):
        text = json.dumps(given, ensure_ascii=False)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"a {type(given).__name__}"
