"""The one JSON text of a value, so that it can be hashed, compared and written to disk whole.

Where it stands on the road: beneath everything in a sweep that touches the disk.
"""

import json
import os
import secrets
from dataclasses import asdict, is_dataclass
from pathlib import Path


def canonical_json(value: object) -> bytes:
    """Sorted keys, two spaces, ASCII, a final newline; a dataclass becomes an object.

    Raises:
        ValueError: the value holds an infinity or NaN.
        TypeError: the value holds something that JSON has no form for.
    """
    tree = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    text = json.dumps(tree, sort_keys=True, indent=2, allow_nan=False, default=_as_tree)
    return (text + "\n").encode("ascii")


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


def _as_tree(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
