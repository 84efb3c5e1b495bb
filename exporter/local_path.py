"""The type of a field that names something on this machine, declared where the field is.

Below every room. What writes a recipe for others asks here which fields may not leave the machine.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MARK = "names a file or folder of this machine"

LocalPath = Annotated[str, _MARK]
"""A path, as the user typed it."""

T = TypeVar("T", bound="DataclassInstance")


@cache
def local_fields(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass that are a `LocalPath`, or one or None."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(name for name, hint in hints.items() if _is_local(hint))


def _is_local(hint: Any) -> bool:
    """Whether a type is a `LocalPath`, or one or None, whatever else is noted about it."""
    notes = get_args(hint)
    if get_origin(hint) is Annotated:
        return _MARK in notes[1:] or _is_local(notes[0])
    return any(_is_local(part) for part in notes)


def map_local_paths(options: T, change: Callable[[str], str | None]) -> T:
    """A dataclass with its local paths changed; those that are None stay None."""
    given: dict[str, Any] = {name: getattr(options, name) for name in local_fields(type(options))}
    return replace(options, **{name: change(path) for name, path in given.items() if path is not None})
