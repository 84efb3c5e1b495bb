"""Reading records back: every value must have its type, and a wrong one is named by file and key.

Strict: no text for a number, no number for a flag. Whether an unknown key is refused is the record's choice.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from exporter.errors import BundleError, InternalError, nearest
from exporter.records.json_text import parse_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

STRICT: dict[str, object] = {"strict": True, "allow_inf_nan": False, "extra": "forbid"}
"""`__pydantic_config__` of a record in which an unknown key is an error."""

LENIENT: dict[str, object] = {**STRICT, "extra": "ignore"}
"""`__pydantic_config__` of a record to which a newer exporter may add keys."""

_MAX_BYTES = 1 << 26
_SHOWN = 60

_EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "mapping_type": "an object",
    "dict_type": "an object",
    "dataclass_type": "an object",
}

Record = TypeVar("Record")
_adapters: dict[type[Any], "TypeAdapter[Any]"] = {}


def read_file(kind: type[Record], path: Path, remedy: str) -> Record:
    """The record in a JSON file.

    Args:
        kind: its class.
        path: of the file.
        remedy: how to get a sound one, for messages.

    Raises:
        BundleError: the file cannot be read, is too large, is not JSON, or holds something else; the line names the
            key.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}; {remedy}") from None
    if len(data) > _MAX_BYTES:
        raise BundleError(f"{path}: expected at most {_MAX_BYTES >> 20} MiB; {remedy}")
    return record_from(kind, parse_json(data, str(path), "JSON", remedy), f"{path}", remedy)


def record_from(kind: type[Record], tree: object, where: str, remedy: str) -> Record:
    """The record that parsed JSON stands for.

    Args:
        kind: its class.
        tree: from `parse_json`.
        where: the file that it came from, for messages.
        remedy: how to get a sound one, for messages.

    Raises:
        BundleError: a key is missing or unknown, or a value has another type; the line names the first one.
    """
    from pydantic import ValidationError

    try:
        # As text, since strict reading takes a list for a tuple only there. A lone surrogate becomes U+FFFD.
        text = json.dumps(tree, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
        record: Record = _adapter(kind).validate_json(text.decode("utf-16-le", "replace"))
        return record
    except ValidationError as error:
        raise BundleError(f"{where}: {_problem(kind, tree, error)}; {remedy}") from None


def message_from(kind: type[Record], tree: object) -> Record:
    """The value that another process of this program sent as the JSON of `to_tree`.

    Raises:
        InternalError: it sent something else.
    """
    try:
        return record_from(kind, tree, "message", "both processes should run the same version")
    except BundleError as error:
        raise InternalError(str(error)) from error


def _adapter(kind: type[Any]) -> "TypeAdapter[Any]":
    """Made on first use, since that takes milliseconds."""
    from pydantic import TypeAdapter

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _problem(kind: type[Any], tree: object, error: "ValidationError") -> str:
    """The first complaint, as `path.of.key: expected X, got Y`."""
    found = error.errors(include_url=False)[0]
    path, value = _located(tree, found)
    last = found["loc"][-1] if found["loc"] else ""
    if found["type"] == "missing" and isinstance(last, str):
        return f'{path}: missing key "{last}"'
    if found["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        place = path.rpartition(".")[0]
        hint = "" if place else nearest(str(last), [item.name for item in fields(kind)])
        return f'{place or "top level"}: unknown key "{last}".{hint}'
    return f"{path}: {_expectation(found)}, got {json.dumps(value)[:_SHOWN]}"


def _expectation(found: "ErrorDetails") -> str:
    known = found.get("ctx", {})
    match found["type"]:
        case "value_error":
            return str(known["error"])
        case "literal_error":
            return f"expected {known['expected']}".replace("'", "")
        case "missing":
            return f"expected at least {int(found['loc'][-1]) + 1} entries"
        case "too_long":
            return f"expected at most {known['max_length']} entries"
        case kind:
            return f"expected {_EXPECTED[kind]}" if kind in _EXPECTED else found["msg"]


def _located(tree: object, found: "ErrorDetails") -> tuple[str, object]:
    """The path of a complaint, as far as the tree goes, and what stands there."""
    path = ""
    for part in found["loc"]:
        if isinstance(tree, dict) and part in tree:
            path, tree = f"{path}.{part}", tree[part]
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            path, tree = f"{path}[{part}]", tree[part]
        else:
            break
    return path.removeprefix(".") or "top level", tree
