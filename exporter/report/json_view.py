"""Reading JSON that others wrote: every value is checked where it is taken, and a wrong one is named.

Where it stands on the road: in, `validation.json`, `bench.json` or `sweep.json`; out, the numbers and texts that the
records of this room are made of. Keys that nobody asks for are left alone, so that a newer exporter may add some.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from exporter.errors import BundleError
from exporter.json_text import parse_json

_MAX_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class JsonView:
    """An object inside a JSON file.

    Attributes:
        file: the file's name, for messages.
        path: where in the file the object stands, such as `contenders[2]`; empty at the top.
        tree: the object itself.
    """

    file: str
    path: str
    tree: Mapping[str, object]

    def has(self, key: str) -> bool:
        """Whether a key is there and not null."""
        return self.tree.get(key) is not None

    def number(self, key: str) -> float:
        """A number; `read_json` has seen to it that it is finite."""
        value = self.tree.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self._refuse(key, "a number")
        return float(value)

    def number_or_none(self, key: str) -> float | None:
        """A finite number, or None where the key is absent or null."""
        return self.number(key) if self.has(key) else None

    def integer(self, key: str) -> int:
        """A whole number."""
        value = self.tree.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            self._refuse(key, "a whole number")
        return value

    def integer_or_none(self, key: str) -> int | None:
        """A whole number, or None where the key is absent or null."""
        return self.integer(key) if self.has(key) else None

    def text(self, key: str) -> str:
        """A string."""
        value = self.tree.get(key)
        if not isinstance(value, str):
            self._refuse(key, "a text")
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self.tree.get(key)
        if not isinstance(value, bool):
            self._refuse(key, "true or false")
        return value

    def interval(self, key: str) -> tuple[float, float]:
        """A list of two finite numbers, the lower one first."""
        value = self.tree.get(key)
        if isinstance(value, list) and len(value) == 2:
            pair = JsonView(file=self.file, path=self._at(key), tree={"low": value[0], "high": value[1]})
            low, high = pair.number("low"), pair.number("high")
        else:
            self._refuse(key, "a list of a lower and an upper bound")
        if low > high:
            self._refuse(key, "the lower bound first")
        return low, high

    def interval_or_none(self, key: str) -> tuple[float, float] | None:
        """An interval, or None where the key is absent or null."""
        return self.interval(key) if self.has(key) else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; an absent or null key is an empty one."""
        value = self.tree.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._refuse(key, "a list of texts")
        return tuple(value)

    def numbers(self, key: str) -> dict[str, float]:
        """An object of finite numbers; an absent or null key is an empty one."""
        if not self.has(key):
            return {}
        inner = self.view(key)
        return {name: inner.number(name) for name in inner.tree}

    def view(self, key: str) -> "JsonView":
        """An object."""
        value = self.tree.get(key)
        if not isinstance(value, dict):
            self._refuse(key, "an object")
        return JsonView(file=self.file, path=self._at(key), tree=value)

    def views(self, key: str) -> tuple["JsonView", ...]:
        """A list of objects; an absent or null key is an empty one."""
        return tuple(self._views(key))

    def named_views(self, key: str) -> dict[str, "JsonView"]:
        """An object of objects; an absent or null key is an empty one."""
        if not self.has(key):
            return {}
        inner = self.view(key)
        return {name: inner.view(name) for name in inner.tree}

    def _views(self, key: str) -> Iterator["JsonView"]:
        value = self.tree.get(key)
        if value is None:
            return
        if not isinstance(value, list):
            self._refuse(key, "a list")
        for place, item in enumerate(value):
            if not isinstance(item, dict):
                self._refuse(f"{key}[{place}]", "an object", item)
            yield JsonView(file=self.file, path=self._at(f"{key}[{place}]"), tree=item)

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _refuse(self, key: str, expected: str, got: object = None) -> NoReturn:
        found = json.dumps(self.tree[key])[:60] if key in self.tree else "nothing there"
        found = found if got is None else json.dumps(got)[:60]
        raise BundleError(
            f"{self.file}: {self._at(key)}: expected {expected}, got {found}; make the file again"
        )


def read_json(path: Path) -> JsonView | None:
    """The object in a JSON file, or None if there is no such file.

    Raises:
        BundleError: too large, not JSON, or not an object.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise BundleError(f"{path}: expected at most {_MAX_BYTES >> 20} MiB; make the file again")
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error}") from None
    tree = parse_json(data, str(path), "JSON", "make the file again")
    if not isinstance(tree, dict):
        raise BundleError(f"{path}: expected a JSON object, got a {type(tree).__name__}; make the file again")
    return JsonView(file=path.name, path="", tree=tree)
