"""The options that stand for recipe keys, once for every command that takes them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import click

from exporter.errors import UsageError, quoted

_KEYS = {
    "place": "model.name",
    "weights": "weights",
    "seed": "seed",
    "image_size": "image_size",
    "model_option": "model.options",
    "preprocess": "model.preprocess",
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
    "prepare": "prepare",
    "batch": "batch",
    "dynamic_batch": "dynamic_batch",
    "precision": "precision",
    "lowering": "lowering",
    "calibration": "calibration.data",
    "calibration_images": "calibration.images",
    "input": "input",
    "layout": "layout",
    "disable_pass": "disable_passes",
    "data": "validate.data",
    "unlabelled": "validate.unlabelled",
    "pairs": "validate.pairs",
    "classes": "validate.classes",
    "labels_in_order": "validate.labels_in_order",
    "templates": "validate.templates",
    "max_drop": "validate.accuracy.max_drop",
    "min_agreement": "validate.agreement.min",
    "min_speedup": "bench.min_speedup",
    "name": "name",
}
"""Recipe key by option."""

_RECIPE_OPTIONS = {
    "r": click.option("--r", type=int, help="Tokens merged per block; 0 is the dense model."),
    "schedule": click.option(
        "--schedule", help="How r is spread over the blocks: constant, decreasing or increasing."
    ),
    "align": click.option("--align", type=int, help="Make later token counts multiples of this."),
    "r_per_layer": click.option("--r-per-layer", help="Tokens merged in each block, such as 16,14,12."),
    "keep_per_layer": click.option(
        "--keep-per-layer", help="Tokens left after each block (150,120), or fractions kept (0.9,0.9)."
    ),
    "method": click.option("--method", help="How tokens are matched: tome, pitome."),
    "method_option": click.option(
        "--method-option", multiple=True, metavar="NAME=NUMBER", help="An option of the method."
    ),
    "proportional_attention": click.option(
        "--proportional-attention/--no-proportional-attention",
        default=None,
        help="Weigh merged tokens by size in attention; default by weight family.",
    ),
    "target": click.option("--target", multiple=True, help="Engines to emit: a comma list, or repeated."),
    "prepare": click.option(
        "--prepare/--no-prepare",
        default=None,
        help="Where an engine cannot be built here, put what builds it elsewhere into the bundle (trt).",
    ),
    "weights": click.option(
        "--weights", help="pretrained, random, or a file: .safetensors, .pth, .pt, .bin, .ckpt."
    ),
    "seed": click.option("--seed", type=int, help="For random weights."),
    "tower": click.option("--tower", help="Of a CLIP: image, text (exported as it is), or both."),
    "image_size": click.option(
        "--image-size", help="Other than the model's own: 224, or 96x160 (height, width)."
    ),
    "model_option": click.option(
        "--model-option",
        multiple=True,
        metavar="NAME=VALUE",
        help="A free parameter of the architecture, such as num_classes=10; the rest comes from the weights.",
    ),
    "preprocess": click.option(
        "--preprocess",
        help="A JSON file that says how photos become the model's input, like preprocess.json.",
    ),
    "batch": click.option("--batch", type=int, help="Images per call."),
    "dynamic_batch": click.option(
        "--dynamic-batch/--static-batch", default=None, help="Leave the batch free; tokens stay static."
    ),
    "precision": click.option("--precision", help="fp32, fp16, bf16 or int8."),
    "engine_option": click.option(
        "--engine-option",
        multiple=True,
        metavar="TARGET.NAME=VALUE",
        help="An option of an engine, such as trt.workspace_mb=4096; repeatable.",
    ),
    "lowering": click.option(
        "--lowering",
        multiple=True,
        metavar="NAME=FORM",
        help="Instead of each target's own: mask=bias|expanded|folded, selection=gather|one-hot, "
        "attention=decomposed|op|fused, ranking=count|sort.",
    ),
    "calibration": click.option("--calibration", help="Images for int8: a folder or a CSV."),
    "calibration_images": click.option("--calibration-images", type=int, help="How many of them."),
    "input": click.option("--input", help="float, or uint8 for bytes that the engine normalises itself."),
    "layout": click.option("--layout", help="Of bytes: nchw or nhwc."),
    "disable_pass": click.option(
        "--disable-pass", multiple=True, help="An exact pass to leave out; repeatable."
    ),
    "name": click.option("--name", help="The bundle's name."),
}

_MEASURE_OPTIONS = {
    "data": click.option(
        "--data", help="Images: a folder, with a sub-folder per class if labelled, or a CSV of image,label."
    ),
    "unlabelled": click.option(
        "--unlabelled",
        is_flag=True,
        default=None,
        help="Take the images of --data as unlabelled, however they lie.",
    ),
    "pairs": click.option("--pairs", help="CSV of image,caption: retrieval with a two-tower model."),
    "classes": click.option(
        "--classes",
        help="Class names, one per line, in the model's order: to match labels with; zero-shot with a two-tower model.",
    ),
    "labels_in_order": click.option(
        "--labels-in-order",
        is_flag=True,
        default=None,
        help="Number the class folders of --data in the order of their names; one for every class of the model.",
    ),
    "templates": click.option(
        "--templates", help="Prompts for the class names, one per line, each with one {}."
    ),
    "max_drop": click.option("--max-drop", type=float, help="Points of top-1 that may be lost."),
    "min_agreement": click.option(
        "--min-agreement", type=float, help="Percent of images on which dense model and engine must agree."
    ),
}


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every option that stands for a recipe key, what to measure on included."""
    speed = click.option("--min-speedup", type=float, help="Times as fast as the dense engine it must be.")
    for option in reversed((*_RECIPE_OPTIONS.values(), *_MEASURE_OPTIONS.values(), speed)):
        command = option(command)
    return command


def measure_options(command: Callable[..., Any], without: Sequence[str] = ()) -> Callable[..., Any]:
    """Add every option that says what to measure on and what has to be reached, but for those named."""
    for name, option in reversed(_MEASURE_OPTIONS.items()):
        if name not in without:
            command = option(command)
    return command


def recipe_options_named(names: Sequence[str]) -> list[Callable[..., Any]]:
    """Some of the options that stand for recipe keys."""
    return [_RECIPE_OPTIONS[name] for name in names]


def model_option(told: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--model`: where the model lies now, for commands whose argument is something else, or its old name."""
    return click.option("--model", "place", metavar="SOURCE", help=told)


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
        value = given.get(option)
        if value is None or value == ():
            continue
        values[key] = _PARSERS.get(option, _unchanged)(value)
    return values | _engine_options(given.get("engine_option") or ())


def _unchanged(value: object) -> object:
    return value


def integers(value: str, option: str) -> list[int]:
    """A comma list of integers.

    Raises:
        UsageError: an entry is none; the line names the option.
    """
    return [int(_number(item, int, option)) for item in value.split(",")]


def names(value: tuple[str, ...]) -> list[str]:
    """A comma list of names, or several."""
    return [name.strip() for item in value for name in item.split(",") if name.strip()]


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


def _image_size(value: str) -> int | list[int]:
    written = re.fullmatch(r"\s*(-?\d{1,18})(?:\s*[xX]\s*(-?\d{1,18}))?\s*", value)
    if written is None:
        raise UsageError(
            f"--image-size: expected a side, or HEIGHTxWIDTH such as 96x160, got {quoted(value)}"
        )
    height, width = written.groups()
    return int(height) if width is None else [int(height), int(width)]


def _model_options(value: tuple[str, ...]) -> dict[str, object]:
    from exporter.recipe import yaml_value

    pairs: dict[str, object] = {}
    for item in value:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--model-option: expected NAME=VALUE such as num_classes=10, got {item}")
        pairs[name.strip()] = yaml_value(text, f"--model-option {name}")
    return pairs


def _forms(value: tuple[str, ...]) -> dict[str, str]:
    pairs = [item.partition("=") for given in value for item in given.split(",")]
    for name, equals, _ in pairs:
        if not equals:
            raise UsageError(f"--lowering: expected NAME=FORM such as mask=folded, got {name}")
    return {name.strip(): form.strip() for name, _, form in pairs}


def _engine_options(given: Sequence[str]) -> dict[str, object]:
    """Options of engines by recipe key; their values are YAML."""
    from exporter.recipe import yaml_value

    values: dict[str, object] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or "." not in name:
            raise UsageError(
                f"--engine-option: expected TARGET.NAME=VALUE such as trt.workspace_mb=4096, got {item}"
            )
        values[f"engines.{name}"] = yaml_value(text, f"--engine-option {name}")
    return values


def _number(text: str, kind: type[int] | type[float], option: str) -> int | float:
    try:
        return kind(text.strip())
    except ValueError:
        what = "an integer" if kind is int else "a number"
        raise UsageError(f"{option}: expected {what}, got {text.strip()!r}") from None


_PARSERS: dict[str, Callable[[Any], object]] = {
    "target": names,
    "disable_pass": names,
    "r_per_layer": lambda value: integers(value, "--r-per-layer"),
    "keep_per_layer": _keeps,
    "method_option": _options,
    "lowering": _forms,
    "image_size": _image_size,
    "model_option": _model_options,
}
