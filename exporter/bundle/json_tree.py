"""Frozen dataclasses to canonical JSON and back, guided by their type annotations.

Where it stands on the road: beneath `manifest`, which has the types; `write` and `load` call it through them.

Supported annotations: str, int, float, bool, None, `X | Y`, `tuple[X, ...]`, `Mapping[str, X]`, dataclasses,
and `object` for a value that is kept as it came. A field with `omit` in its metadata is left out while it is
None, its default.
"""

import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from exporter.errors import nearest


class JsonTreeError(ValueError):
    """A JSON value does not fit the type that it should have; the message starts with its path."""


def canonical_json(tree: object) -> bytes:
    """The one JSON text of a value: sorted keys, two spaces, ASCII, a final newline.

    Raises:
        ValueError: the value holds an infinity or NaN.
    """
    return (json.dumps(tree, sort_keys=True, indent=2, allow_nan=False) + "\n").encode("ascii")


def to_tree(value: object) -> Any:
    """Dicts, lists and scalars of a dataclass."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = [(item, getattr(value, item.name)) for item in fields(value)]
        left_out = {item.name for item, inner in pairs if inner is None and "omit" in item.metadata}
        return {item.name: to_tree(inner) for item, inner in pairs if item.name not in left_out}
    if isinstance(value, Mapping):
        return {key: to_tree(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_tree(inner) for inner in value]
    return value


def from_tree(annotation: Any, tree: object, path: str = "") -> Any:
    """A value of the annotated type out of dicts, lists and scalars.

    Raises:
        JsonTreeError: an unknown or missing key, or a value of another type.
    """
    origin = get_origin(annotation)
    if annotation is object:
        return tree
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _dataclass(annotation, tree, path)
    if origin in (Union, types.UnionType):
        return _union(get_args(annotation), tree, path)
    if origin is tuple and isinstance(tree, list):
        inner = get_args(annotation)[0]
        return tuple(from_tree(inner, item, f"{path}[{index}]") for index, item in enumerate(tree))
    if origin is Mapping and isinstance(tree, dict):
        inner = get_args(annotation)[1]
        return {key: from_tree(inner, item, f"{path}.{key}".lstrip(".")) for key, item in tree.items()}
    if isinstance(annotation, type) and type(tree) is annotation:
        return tree
    if annotation is float and type(tree) is int:
        return float(tree)
    expected = getattr(annotation, "__name__", str(annotation))
    raise JsonTreeError(f"{path or 'top level'}: expected {expected}, got {json.dumps(tree)[:60]}")


def _dataclass(kind: type[Any], tree: object, path: str) -> Any:
    if not isinstance(tree, dict):
        raise JsonTreeError(f"{path or 'top level'}: expected an object, got {json.dumps(tree)[:60]}")
    hints = get_type_hints(kind)
    unknown = [key for key in tree if key not in hints]
    if unknown:
        raise JsonTreeError(f'{path or "top level"}: unknown key "{unknown[0]}".{nearest(unknown[0], hints)}')
    values = {}
    for item in fields(kind):
        if item.name in tree:
            inner = f"{path}.{item.name}".lstrip(".")
            values[item.name] = from_tree(hints[item.name], tree[item.name], inner)
        elif "omit" not in item.metadata:
            raise JsonTreeError(f'{path or "top level"}: missing key "{item.name}"')
    return kind(**values)


def _union(choices: tuple[Any, ...], tree: object, path: str) -> Any:
    problem = None
    for choice in choices:
        if choice is type(None):
            if tree is None:
                return None
            continue
        try:
            return from_tree(choice, tree, path)
        except JsonTreeError as error:
            problem = error
    raise problem or JsonTreeError(f"{path}: expected null, got {json.dumps(tree)[:60]}")
