"""Read a JSON file of a model folder: the object in it, or one line that says what is wrong with the file."""

import json
from pathlib import Path
from typing import Any

from exporter.errors import ExportError, ModelUnavailableError

LFS_POINTER = b"version https://git-lfs.github.com"
LFS_ADVICE = "is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, or fetch it again"

_LARGEST_BYTES = 1 << 26


def read_json(path: Path, what: str, kind: type[ExportError] = ModelUnavailableError) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: The file.
        what: How messages name it.
        kind: Of the error to raise.

    Raises:
        ExportError: Of that kind: it cannot be read or is no JSON object; the message says where it breaks off.
    """
    content = _content(path, what, kind)
    if not isinstance(content, dict):
        raise kind(f"{what} holds a {type(content).__name__}: expected a JSON object")
    return content


def read_json_list(path: Path, what: str) -> list[Any]:
    """Read a file that holds one JSON list.

    Raises:
        ModelUnavailableError: It cannot be read or is no JSON list.
    """
    content = _content(path, what, ModelUnavailableError)
    if not isinstance(content, list):
        raise ModelUnavailableError(f"{what} holds a {type(content).__name__}: expected a JSON list")
    return content


def _content(path: Path, what: str, kind: type[ExportError]) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
        if data.startswith(LFS_POINTER):
            raise kind(f"{what} {LFS_ADVICE}")
        if len(data) > _LARGEST_BYTES:
            raise kind(f"{what} has more than {_LARGEST_BYTES} bytes: expected a configuration")
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise kind(
            f"{what} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            "correct it, or fetch it again"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        match error:
            case OSError():
                reason = f"cannot be read ({error.strerror})"
            case RecursionError():
                reason = "is nested too deeply"
            case _:
                reason = "is not UTF-8 text"
        raise kind(f"{what} {reason}; fetch it again") from error
