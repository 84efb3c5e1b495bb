"""JSON text: the one spelling in which records are written, and a bounded parser of what others wrote.

The parser takes the bytes of a file and returns dicts, lists and scalars, in which every number fits into 64 bits. What
the keys mean is checked in `reading`.
"""

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from exporter.errors import BundleError

LARGEST = 2.0**63
"""Largest magnitude of a number in a file; arithmetic with such numbers does not overflow."""

OMIT: Mapping[str, object] = {"omit": True}
"""Metadata of a field that is not written while it has its default."""


def canonical_json(value: object) -> bytes:
    """The one JSON text of a value: sorted keys, two spaces, ASCII, a final newline; a dataclass becomes an object.

    Raises:
        ValueError: the value holds an infinity or NaN.
        TypeError: the value holds something that JSON has no form for.
    """
    return (json.dumps(to_tree(value), sort_keys=True, indent=2, allow_nan=False) + "\n").encode("ascii")


def to_tree(value: object) -> Any:
    """Dicts, lists and scalars of a value; a field of a dataclass may have another key, its `alias`.

    Paths become absolute: they are for processes of this machine, and in no file.
    """
    if is_dataclass(value) and not isinstance(value, type):
        written = [(item, getattr(value, item.name)) for item in fields(value)]
        return {
            item.metadata.get("alias", item.name): to_tree(inner)
            for item, inner in written
            if not ("omit" in item.metadata and inner == _default(item))
        }
    if isinstance(value, Mapping):
        return {key: to_tree(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_tree(inner) for inner in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def _default(item: Field[Any]) -> object:
    return item.default if item.default_factory is MISSING else item.default_factory()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is there with all of its content or not at all, whatever stops the process."""
    sibling = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        with sibling.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sibling.replace(path)
    finally:
        sibling.unlink(missing_ok=True)


def parse_json(data: bytes, where: str, expected: str, remedy: str) -> object:
    """The value that a file of JSON holds.

    Args:
        data: the file's content.
        where: its name, for messages.
        expected: what it should be, such as `a bundle's manifest`.
        remedy: how to get a sound one.

    Raises:
        BundleError: it is not JSON, nested too deeply, or holds a number that is not finite or beyond 64 bits.
    """
    try:
        tree: object = json.loads(data)
        found = next(_beyond(tree, ""), None)
    except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError, too
        raise BundleError(
            f"{where}: expected {expected}, got text that is not sound JSON; {remedy}"
        ) from None
    if found is not None:
        path, number = found
        shown = str(number) if len(str(number)) <= 40 else f"{str(number)[:37]}..."
        raise BundleError(f"{where}: {path}: expected a number within 64 bits, got {shown}; {remedy}")
    return tree


def _beyond(tree: object, path: str) -> Iterator[tuple[str, int | float]]:
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from _beyond(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list):
        for place, inner in enumerate(tree):
            yield from _beyond(inner, f"{path}[{place}]")
    elif isinstance(tree, int | float) and not _is_bounded(tree):
        yield path or "top level", tree


def _is_bounded(number: int | float) -> bool:
    return (isinstance(number, int) or math.isfinite(number)) and -LARGEST <= number <= LARGEST
