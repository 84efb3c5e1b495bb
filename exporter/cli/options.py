"""The command-line options of recipe keys, made from the keys' declarations, and the options of every command."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_origin

import click

from exporter.errors import UsageError, quoted
from exporter.models import ImageSize, Lengths, OptionValue
from exporter.recipe import RecipeKey, recipe_keys, yaml_value

Command = Callable[..., Any]

OPTION_KEYS = tuple(key for key in recipe_keys() if key.key.option is not None)
"""The recipe keys that have an option."""

RENAMED = {"launches": "processes"}


def recipe_options(command: Command) -> Command:
    """Add the option of every recipe key that has one."""
    return add_options(command, map(recipe_option, OPTION_KEYS))


def measure_options(command: Command, without: Iterable[str] = ()) -> Command:
    """Add the options that say what to measure on and the gates, except those of the keys that are named."""
    keys = [key for key in OPTION_KEYS if key.path[0] == "validate" and key.name not in without]
    return add_options(command, map(recipe_option, keys))


def add_options(command: Command, options: Iterable[Callable[[Command], Command]]) -> Command:
    """Add options, which `--help` then lists in this order."""
    for option in reversed(list(options)):
        command = option(command)
    return command


def recipe_option(key: RecipeKey) -> Callable[[Command], Command]:
    """The option of a recipe key."""
    pairs, listed = get_origin(key.kind) is Mapping, key.kind in (tuple[str, ...], Mapping[str, str])
    how_often = " Several: as a comma list, or repeated." if listed else " Repeatable." if pairs else ""
    return click.option(
        key.key.option or "",
        type=key.kind if key.kind in (bool, int, float) else str,
        is_flag=key.kind is bool,
        default=() if how_often else None,
        multiple=bool(how_often),
        metavar=key.key.metavar,
        help=help_text(key) + how_often,
    )


def help_text(key: RecipeKey) -> str:
    """The description of a key with the words that it may be set to."""
    text = key.sentence.replace("`", "")
    return f"{text.removesuffix('.')} ({', '.join(key.choices)})." if key.choices else text


def model_option(help: str) -> Callable[[Command], Command]:
    """`--model`, for commands whose argument is something else, or the model's old name."""
    return click.option("--model", "place", metavar="SOURCE", help=help)


def current_name(option: str) -> str:
    """The name of an option today, for one that was renamed; its old name works for one version, with a notice."""
    if option not in RENAMED:
        return option
    click.echo(
        f"note: --{option} is now called --{RENAMED[option]}; the old name goes in the next version", err=True
    )
    return RENAMED[option]


def overrides(given: Mapping[str, Any]) -> dict[str, object]:
    """The options that were given, as values by recipe key.

    Args:
        given: values by parameter name; None and empty tuples stand for options that were not given, and names that
            are no recipe key's are left out.

    Raises:
        UsageError: a value that cannot be read; the line names the option.
    """
    values: dict[str, object] = {}
    if given.get("place") is not None:
        values["model.name"] = given["place"]
    for key in OPTION_KEYS:
        value = given.get(parameter(key))
        if value is None or value == ():
            continue
        read = _READERS.get(key.kind)
        values[key.name] = read(value, key) if read else value
    engines: Any = values.pop("engines", {})
    return values | {f"engines.{name}": option for name, option in engines.items()}


def parameter(key: RecipeKey) -> str:
    """The parameter of a command's function that an option's value goes to."""
    return (key.key.option or "").partition("/")[0].removeprefix("--").replace("-", "_")


def integers(text: str, option: str) -> list[int]:
    """A comma list of integers.

    Raises:
        UsageError: an entry is none; the line names the option.
    """
    return [int(_number(item, int, option)) for item in text.split(",")]


def fractions(text: str, option: str) -> list[float]:
    """A comma list of numbers.

    Raises:
        UsageError: an entry is none; the line names the option.
    """
    return [float(_number(item, float, option)) for item in text.split(",")]


def names(given: Iterable[str]) -> list[str]:
    """The names in one or more comma lists."""
    return [name.strip() for item in given for name in item.split(",") if name.strip()]


def _spelling(key: RecipeKey) -> str:
    return (key.key.option or "").partition("/")[0]


def _number(text: str, kind: type[int] | type[float], option: str) -> int | float:
    try:
        return kind(text.strip())
    except ValueError:
        what = "an integer" if kind is int else "a number"
        raise UsageError(f"{option}: expected {what}, got {text.strip()!r}") from None


def _keeps(text: str, key: RecipeKey) -> list[int | float]:
    return [_number(item, float if "." in item else int, _spelling(key)) for item in text.split(",")]


def _image_size(text: str, key: RecipeKey) -> int | list[int]:
    written = re.fullmatch(r"\s*(-?\d{1,18})(?:\s*[xX]\s*(-?\d{1,18}))?\s*", text)
    if written is None:
        raise UsageError(
            f"{_spelling(key)}: expected a side, or HEIGHTxWIDTH such as {key.key.example}, got {quoted(text)}"
        )
    height, width = written.groups()
    return int(height) if width is None else [int(height), int(width)]


def _length(text: str, key: RecipeKey) -> int | list[int]:
    return integers(text, _spelling(key)) if "," in text else int(_number(text, int, _spelling(key)))


def _pairs(given: Iterable[str], key: RecipeKey) -> dict[str, str]:
    """`NAME=VALUE` items as a mapping of texts."""
    has_dot = "." in (key.key.metavar or "")
    pairs = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name.strip() or (has_dot and "." not in name):
            raise UsageError(
                f"{_spelling(key)}: expected {key.key.metavar} such as {key.key.example}, got {item}"
            )
        pairs[name.strip()] = text.strip()
    return pairs


def _yaml_values(given: Iterable[str], key: RecipeKey) -> dict[str, object]:
    return {name: yaml_value(text, f"{_spelling(key)} {name}") for name, text in _pairs(given, key).items()}


_READERS: Mapping[Any, Callable[[Any, RecipeKey], object]] = {
    tuple[str, ...]: lambda given, _: names(given),
    tuple[int, ...]: lambda text, key: integers(text, _spelling(key)),
    tuple[int, ...] | tuple[float, ...] | None: _keeps,
    int | ImageSize | None: _image_size,
    int | Lengths | None: _length,
    Mapping[str, OptionValue]: _yaml_values,
    Mapping[str, str]: lambda given, key: _pairs(",".join(given).split(","), key),
    Mapping[str, Any]: _yaml_values,
}
"""How the text of an option becomes the value of a key, by the key's type; what is not listed is as in click."""
