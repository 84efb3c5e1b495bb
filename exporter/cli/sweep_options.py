"""The options of `sweep`: axes instead of single values, and goals."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import click

from exporter.cli.options import integers, measure_options, names, overrides, recipe_options_named
from exporter.errors import UsageError, nearest

if TYPE_CHECKING:
    from exporter.pipeline import Goal
    from exporter.sweep import Axes

_SHARED = (
    "weights",
    "seed",
    "image_size",
    "model_option",
    "preprocess",
    "batch",
    "dynamic_batch",
    "input",
    "layout",
    "disable_pass",
    "proportional_attention",
    "method_option",
    "engine_option",
    "lowering",
    "calibration",
    "calibration_images",
)
"""Options of an export that all points share."""

_AXES = (
    click.option("--r", help="Tokens merged per block, such as 0,4,8,12,16."),
    click.option("--method", multiple=True, help="How tokens are matched: tome,pitome."),
    click.option("--schedule", multiple=True, help="How r is spread: constant,decreasing,increasing."),
    click.option("--align", help="Multiples for later token counts, such as 1,8; 1 aligns nothing."),
    click.option("--precision", multiple=True, help="fp32,fp16,bf16,int8."),
    click.option("--target", multiple=True, help="Engines: a comma list."),
    click.option(
        "--max-drop", type=float, help="Find the fastest schedule that loses at most so many points."
    ),
    click.option(
        "--min-speedup", type=float, help="Find the best schedule that is at least so many times faster."
    ),
)

_NOT_FOR_POINTS = ("max_drop", "min_agreement", "pairs")


def sweep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the axes, the goals, what all points share, and what to measure on."""
    for option in reversed((*_AXES, *recipe_options_named(_SHARED))):
        command = option(command)
    return measure_options(command, without=_NOT_FOR_POINTS)


def sweep_axes(given: dict[str, Any]) -> "tuple[Axes, Goal | None, dict[str, object]]":
    """The axes, the goal, and the recipe keys that all points share.

    Raises:
        UsageError: neither axes nor a goal, both, two goals, or a value that is none.
    """
    from exporter.forms import Precision
    from exporter.recipe.vocabulary import METHODS, TARGETS
    from exporter.schedule import ScheduleKind
    from exporter.sweep import Axes

    shared = overrides(
        {key: value for key, value in given.items() if key in _SHARED or key not in _axis_names()}
    )
    options = shared.pop("method_options", {})
    assert isinstance(options, dict)
    methods = _known(names(given["method"]) or ["tome"], METHODS, "--method")
    kinds: Any = _known(names(given["schedule"]) or ["constant"], get_args(ScheduleKind), "--schedule")
    goal = _goal(given)
    axes = Axes(
        r=integers(given["r"], "--r") if given["r"] is not None else [0],
        methods=dict.fromkeys(methods, options),
        kinds=kinds,
        aligns=integers(given["align"], "--align") if given["align"] is not None else [1],
        precisions=_known(names(given["precision"]) or ["fp32"], get_args(Precision), "--precision"),
        targets=_known(names(given["target"]) or ["onnx"], TARGETS, "--target"),
    )
    return axes, goal, shared


def _goal(given: dict[str, Any]) -> "Goal | None":
    from exporter.pipeline import Goal

    limits = {"max_drop": given["max_drop"], "min_speedup": given["min_speedup"]}
    asked = [name for name, limit in limits.items() if limit is not None]
    if len(asked) > 1:
        raise UsageError("sweep: expected one of --max-drop and --min-speedup, got both")
    if bool(asked) == (given["r"] is not None):
        raise UsageError(
            "sweep: expected either a grid (--r 0,4,8,...) or a goal (--max-drop POINTS or --min-speedup TIMES), got "
            + ("both" if asked else "neither")
        )
    if not asked:
        return None
    return Goal(kind="max_drop" if asked[0] == "max_drop" else "min_speedup", limit=limits[asked[0]])


def _known(given: list[str], known: tuple[str, ...], option: str) -> list[str]:
    for name in given:
        if name not in known:
            raise UsageError(
                f"{option}: expected some of {', '.join(known)}, got {name}.{nearest(name, known)}"
            )
    return given


def _axis_names() -> tuple[str, ...]:
    return ("r", "method", "schedule", "align", "precision", "target", "max_drop", "min_speedup")
