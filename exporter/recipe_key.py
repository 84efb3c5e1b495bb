"""What a field says of itself as a recipe key, beside its name, type, default and docstring.

Below every room. A key is declared once, as a field of a frozen dataclass: `Recipe`, or the request or options of the
stage that takes it. `recipe` makes YAML and JSON Schema of the declaration, `cli` the option, `sweep` its cache key.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

LARGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Key:
    """Stands in the `Annotated` of a field; on a field that holds a dataclass, `sweep` is for all its fields.

    Attributes:
        path: YAML path from the top of the recipe; None for the field's own place, empty for a field that is no key.
        option: how the command line spells it, such as `--batch` or `--prepare/--no-prepare`; None for no option.
        metavar: of the option's value, where its type does not say enough.
        example: of the option's value, for a message that refuses one.
        values: the type in a recipe, where it is wider than the field's.
        sweep: what a sweep makes of it: None for a value that decides what is built and that all points share, which
            makes it part of the cache key; `axis` where it differs from point to point; `apart` where it changes
            nothing that is built.
    """

    path: str | None = None
    option: str | None = None
    metavar: str | None = None
    example: str | None = None
    values: Any = None
    sweep: Literal["axis", "apart"] | None = None


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds of a number, each None for no bound; infinities and NaN are never in range."""

    least: float | None = None
    above: float | None = None
    most: float | None = None


Count = Annotated[int, Range(least=0, most=LARGEST)]
Positive = Annotated[int, Range(least=1, most=LARGEST)]
