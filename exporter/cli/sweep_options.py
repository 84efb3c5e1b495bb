"""The options of `sweep`: axes instead of single values, and goals."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from exporter.cli.options import (
    OPTION_KEYS,
    Command,
    add_options,
    fractions,
    help_text,
    integers,
    measure_options,
    names,
    overrides,
    parameter,
    recipe_option,
)
from exporter.errors import UsageError, nearest

if TYPE_CHECKING:
    from exporter.pipeline import Goal
    from exporter.sweep import Axes

_AXES = (
    "schedule.r",
    "schedule.keep_rate",
    "method",
    "schedule.kind",
    "schedule.align",
    "precision",
    "targets",
)
"""The recipe keys that take several values in a sweep."""

_NOT_FOR_POINTS = (
    "tower",
    "validate.accuracy.max_drop",
    "validate.agreement.min",
    "validate.overflow.max",
    "validate.pairs",
)

_KEYS = {key.name: key for key in OPTION_KEYS}

_SHARED = tuple(
    key
    for key in OPTION_KEYS
    if (key.key.sweep is None or key.name == "method_options") and key.name not in _NOT_FOR_POINTS
)
"""What decides an export and is the same for all points; options go to the method that knows them."""

_GOALS = (
    click.option(
        "--max-drop",
        type=float,
        help="Find the fastest schedule that loses at most this many points of top-1.",
    ),
    click.option(
        "--min-speedup", type=float, help="Find the most accurate schedule that is at least this much faster."
    ),
)


def sweep_options(command: Command) -> Command:
    """Add the axes, the goals, what all points share, and what to measure on."""
    command = measure_options(command, without=_NOT_FOR_POINTS)
    return add_options(command, (*map(_axis, _AXES), *_GOALS, *map(recipe_option, _SHARED)))


def _axis(name: str) -> Callable[[Command], Command]:
    key = _KEYS[name]
    text = f"{help_text(key)} Several: as a comma list, or repeated."
    return click.option(key.key.option or "", multiple=True, metavar="LIST", help=text)


def sweep_axes(given: dict[str, Any]) -> "tuple[Axes, Goal | None, dict[str, object]]":
    """The axes, the goal, and the recipe keys that all points share.

    Raises:
        UsageError: neither axes nor a goal, both, two goals, or a value that is none.
    """
    from exporter.sweep import Axes

    varied = (*map(parameter, map(_KEYS.__getitem__, _AXES)), "max_drop", "min_speedup")
    shared = overrides({name: value for name, value in given.items() if name not in varied})
    options = shared.pop("method_options", {})
    assert isinstance(options, dict)
    goal = _goal(given)
    kinds: Any = _words("schedule.kind", given)
    r, rates = _integers("schedule.r", given), _fractions("schedule.keep_rate", given)
    axes = Axes(
        r=r if r or rates else [0],
        keep_rates=rates,
        methods=dict.fromkeys(_words("method", given), options),
        kinds=kinds,
        aligns=_integers("schedule.align", given) or [1],
        precisions=_words("precision", given),
        targets=_words("targets", given),
    )
    return axes, goal, shared


def _goal(given: dict[str, Any]) -> "Goal | None":
    from exporter.pipeline import Goal

    limits = {"max_drop": given["max_drop"], "min_speedup": given["min_speedup"]}
    asked = [name for name, limit in limits.items() if limit is not None]
    if len(asked) > 1:
        raise UsageError("sweep: expected one of --max-drop and --min-speedup, got both")
    if bool(asked) == bool(given["r"] or given["keep_rate"]):
        raise UsageError(
            "sweep: expected either a grid (--r 0,4,8,... or --keep-rate 0.9,0.7,...) or a goal (--max-drop POINTS or "
            "--min-speedup TIMES), got " + ("both" if asked else "neither")
        )
    if not asked:
        return None
    return Goal(kind="max_drop" if asked[0] == "max_drop" else "min_speedup", limit=limits[asked[0]])


def _integers(name: str, given: Mapping[str, Any]) -> list[int]:
    option = _KEYS[name].key.option or ""
    return [number for text in given[parameter(_KEYS[name])] for number in integers(text, option)]


def _fractions(name: str, given: Mapping[str, Any]) -> list[float]:
    option = _KEYS[name].key.option or ""
    return [number for text in given[parameter(_KEYS[name])] for number in fractions(text, option)]


def _words(name: str, given: Mapping[str, Any]) -> list[str]:
    """The values of an axis, each known; the key's default where none is given."""
    key = _KEYS[name]
    words = names(given[parameter(key)])
    for word in words:
        if word not in key.choices:
            near = nearest(word, key.choices)
            raise UsageError(
                f"{key.key.option}: expected some of {', '.join(key.choices)}, got {word}.{near}"
            )
    return words or list(key.default if isinstance(key.default, tuple) else (key.default,))
