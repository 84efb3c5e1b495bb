"""The types of recipe values that Python's own do not cover, and how each Python type is read from YAML.

Each check refuses with a message that says everything; the rest is pydantic's own.
"""

import json
import math
import pkgutil
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from exporter.errors import LONGEST_MESSAGE, nearest, quoted
from exporter.models import ImageSize, Lengths, OptionValue
from exporter.models.request import LEAST_LENGTH, MOST_LENGTH
from exporter.recipe_key import LARGEST, Range
from exporter.targets import TARGETS

_METHODS = Path(__file__).parents[1] / "reduction" / "methods"
_UNPRINTABLE = ("Cc", "Zl", "Zp")  # control characters and line separators


def refuse(message: str) -> PydanticCustomError:
    """The error of a validator whose message already says everything; pydantic takes no text with lone surrogates."""
    return PydanticCustomError("refused", "{message}", {"message": quoted(message, LONGEST_MESSAGE)})


@dataclass(frozen=True)
class OneOf:
    """A name among those that another room knows, which is asked when a value is checked.

    Attributes:
        kind: what the names stand for, for messages.
        names: the known ones.
        listed: whether help lists them, which has to be quick.
    """

    kind: str
    names: Callable[[], tuple[str, ...]]
    listed: bool = True

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.names())}

    def _check(self, name: str) -> str:
        known = self.names()
        if name not in known:
            raise refuse(
                f'unknown {self.kind} "{name[:40]}"; known: {", ".join(known)}.{nearest(name, known)}'
            )
        return name


def method_names() -> tuple[str, ...]:
    """The methods, one per file in `reduction/methods/`; the room itself needs torch, so its files are listed."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(_METHODS)])))


def pass_names() -> tuple[str, ...]:
    """The exact passes that may be left out."""
    from exporter.rewrite import SWITCHES

    return SWITCHES


def _target_names() -> tuple[str, ...]:
    return TARGETS


def _printable(text: str) -> str:
    if not text or any(unicodedata.category(letter) in _UNPRINTABLE for letter in text):
        raise refuse(f"expected text, not empty and without control characters, got {text[:40]!r}")
    return text


def _unique(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise refuse(f"expected every name once, got {', '.join(twice)} more than once")
    return names


def _percent(value: float) -> float:
    if 0 < value <= 1:
        raise refuse(f"expected percent, from 0 to 100, such as {100 * value:g}, got {value:g}")
    return value


def _keeps(values: Any) -> list[int] | list[float]:
    if not isinstance(values, list) or not values:
        raise refuse("expected a list with one token count, or one fraction, per block")
    if all(type(value) is int and 1 <= value <= LARGEST for value in values):
        return values
    if all(type(value) is float and 0.0 < value <= 1.0 for value in values):
        return values
    raise refuse("expected only token counts (integers >= 1) or only fractions (with a point, in (0, 1])")


def _image_size(value: Any) -> Any:
    if value is None or (type(value) is int and 1 <= value <= LARGEST):
        return value
    if isinstance(value, list) and len(value) == 2 and all(type(side) is int and side >= 1 for side in value):
        return value
    raise refuse(f"expected an integer >= 1, [height, width] or null, got {json.dumps(value)[:60]}")


def _length(value: Any) -> Any:
    lengths = value if isinstance(value, list) and value else [value]
    if value is None or all(type(each) is int and LEAST_LENGTH <= each <= MOST_LENGTH for each in lengths):
        if lengths == sorted(set(lengths)):
            return value
        raise refuse(f"expected several lengths in ascending order, got {json.dumps(value)[:60]}")
    expected = f"an integer from {LEAST_LENGTH} to {MOST_LENGTH}, a list of such or null"
    raise refuse(f"expected {expected}, got {json.dumps(value)[:60]}")


def _option_value(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _printable(value)
    numbers = value if isinstance(value, list) and value else [value]
    if all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        return value
    raise refuse(f"expected true, false, null, a number, text or a list of numbers, got {str(value)[:40]}")


FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Amount = Annotated[float, Range(least=0.0)]
Percent = Annotated[float, Range(least=0.0, most=100.0), AfterValidator(_percent)]
Method = Annotated[str, OneOf("method", method_names)]
Targets = Annotated[
    tuple[Annotated[str, OneOf("target", _target_names)], ...],
    Field(min_length=1),
    AfterValidator(_unique),
]
Passes = Annotated[
    tuple[Annotated[str, OneOf("pass", pass_names, listed=False)], ...], AfterValidator(_unique)
]

Keeps = tuple[int, ...] | tuple[float, ...]

_SIDE = {"type": "integer", "minimum": 1}
_SIDES = {"type": "array", "items": _SIDE, "minItems": 2, "maxItems": 2}
_TOKENS = {"type": "integer", "minimum": LEAST_LENGTH, "maximum": MOST_LENGTH}
_LENGTHS = {"type": "array", "items": _TOKENS, "minItems": 1}
_FRACTION = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1}

READ_AS: Mapping[Any, Any] = {
    str: Annotated[str, Field(max_length=4096), AfterValidator(_printable)],
    float: Annotated[float, Field(allow_inf_nan=False)],
    int | ImageSize | None: Annotated[
        Any,
        PlainValidator(_image_size),
        WithJsonSchema({"anyOf": [_SIDE, _SIDES, {"type": "null"}]}),
    ],
    int | Lengths | None: Annotated[
        Any,
        PlainValidator(_length),
        WithJsonSchema({"anyOf": [_TOKENS, _LENGTHS, {"type": "null"}]}),
    ],
    OptionValue: Annotated[
        Any,
        PlainValidator(_option_value),
        WithJsonSchema({"anyOf": [{"type": ["boolean", "number", "string", "null"]}, _NUMBERS]}),
    ],
    Keeps | None: Annotated[
        list[Any],
        PlainValidator(_keeps),
        WithJsonSchema({"type": "array", "minItems": 1, "anyOf": [{"items": _SIDE}, {"items": _FRACTION}]}),
    ],
}
"""What YAML gives for a type of a field."""
