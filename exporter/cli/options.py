"""The options that stand for recipe keys, once for every command that takes them."""

from collections.abc import Callable
from typing import Any

import click

from exporter.errors import UsageError

_KEYS = {
    "weights": "weights",
    "seed": "seed",
    "image_size": "image_size",
    "tower": "tower",
    "r": "schedule.r",
    "schedule": "schedule.kind",
    "align": "schedule.align",
    "r_per_layer": "schedule.r_per_layer",
    "keep_per_layer": "schedule.keep_per_layer",
    "method": "method",
    "method_option": "method_options",
    "proportional_attention": "proportional_attention",
    "target": "targets",
    "batch": "batch",
    "dynamic_batch": "dynamic_batch",
    "precision": "precision",
    "input": "input",
    "layout": "layout",
    "disable_pass": "disable_passes",
    "data": "accuracy.data",
    "max_drop": "accuracy.max_drop",
    "name": "name",
}
"""Option by recipe key."""

_RECIPE_OPTIONS = (
    click.option("--r", type=int, help="Tokens merged per block; 0 is the dense model."),
    click.option("--schedule", help="How r is spread over the blocks: constant, decreasing or increasing."),
    click.option("--align", type=int, help="Make later token counts multiples of this."),
    click.option("--r-per-layer", help="Tokens merged in each block, such as 16,14,12."),
    click.option(
        "--keep-per-layer", help="Tokens left after each block (150,120), or fractions kept (0.9,0.9)."
    ),
    click.option("--method", help="How tokens are matched: tome, pitome."),
    click.option("--method-option", multiple=True, metavar="NAME=NUMBER", help="An option of the method."),
    click.option(
        "--proportional-attention/--no-proportional-attention",
        default=None,
        help="Weigh merged tokens by size in attention; default by weight family.",
    ),
    click.option("--target", multiple=True, help="Engines to emit: a comma list, or repeated."),
    click.option("--weights", help="pretrained, random, or a .safetensors file."),
    click.option("--seed", type=int, help="For random weights."),
    click.option("--tower", help="Of a CLIP: image, or text (exported as it is)."),
    click.option("--image-size", type=int, help="Other than the model's own."),
    click.option("--batch", type=int, help="Images per call."),
    click.option(
        "--dynamic-batch/--static-batch", default=None, help="Leave the batch free; tokens stay static."
    ),
    click.option("--precision", help="fp32, fp16 or bf16."),
    click.option("--input", help="float, or uint8 for bytes that the engine normalises itself."),
    click.option("--layout", help="Of bytes: nchw or nhwc."),
    click.option("--disable-pass", multiple=True, help="An exact pass to leave out; repeatable."),
    click.option("--data", help="Labelled image folder to measure accuracy on."),
    click.option("--max-drop", type=float, help="Points of top-1 that may be lost."),
    click.option("--name", help="The bundle's name."),
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every option that stands for a recipe key."""
    for option in reversed(_RECIPE_OPTIONS):
        command = option(command)
    return command


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`, `--quiet` and `--debug`."""
    for option in (
        click.option("--debug", is_flag=True, help="Show the traceback of a failure."),
        click.option("--quiet", is_flag=True, help="No progress, no summary."),
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
    ):
        command = option(command)
    return command


def overrides(given: dict[str, Any]) -> dict[str, object]:
    """The options that were given, by recipe key.

    Raises:
        UsageError: a list or a NAME=NUMBER that cannot be read.
    """
    values: dict[str, object] = {}
    for option, key in _KEYS.items():
        value = given[option]
        if value is None or value == ():
            continue
        values[key] = _PARSERS.get(option, _unchanged)(value)
    return values


def _unchanged(value: object) -> object:
    return value


def _names(value: tuple[str, ...]) -> list[str]:
    return [name.strip() for item in value for name in item.split(",") if name.strip()]


def _integers(value: str) -> list[int]:
    return [int(_number(item, int, "--r-per-layer")) for item in value.split(",")]


def _keeps(value: str) -> list[int | float]:
    return [_number(item, float if "." in item else int, "--keep-per-layer") for item in value.split(",")]


def _options(value: tuple[str, ...]) -> dict[str, float]:
    pairs = {}
    for item in value:
        name, equals, number = item.partition("=")
        if not equals:
            raise UsageError(f"--method-option: expected NAME=NUMBER, got {item}")
        pairs[name] = float(_number(number, float, "--method-option"))
    return pairs


def _number(text: str, kind: type[int] | type[float], option: str) -> int | float:
    try:
        return kind(text.strip())
    except ValueError:
        what = "an integer" if kind is int else "a number"
        raise UsageError(f"{option}: expected {what}, got {text.strip()!r}") from None


_PARSERS: dict[str, Callable[[Any], object]] = {
    "target": _names,
    "disable_pass": _names,
    "r_per_layer": _integers,
    "keep_per_layer": _keeps,
    "method_option": _options,
}
