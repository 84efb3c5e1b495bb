"""Check `--model-option NAME=VALUE`: known by name, of the right type, and agreeing with the weights."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from exporter.errors import UsageError, first_few, library_failures, nearest, quoted
from exporter.models.request import OptionValue

# Of a constructor, but classes and functions, or about training only.
_NOT_OFFERED = ("block_fn", "weight_init", "fix_init", "device", "dtype", "conv_stem_configs")
_LAYERS_BY_NAME = ("act_layer", "norm_layer")
_SIZES = ("img_size", "image_size", "patch_size")
_AT_LEAST_ONE = (
    *_SIZES,
    *("representation_size", "embed_dim", "depth", "num_heads"),
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio"),
    *("num_channels", "num_register_tokens", "projection_dim"),
)
_LARGEST = 1 << 20


def constructor_options(model_class: type[nn.Module]) -> dict[str, Any]:
    """Names of what a model's constructor takes, through its base classes, with their defaults."""
    options: dict[str, Any] = {}
    for each in inspect.getmro(model_class):
        if each is nn.Module or "__init__" not in vars(each):
            continue
        parameters = inspect.signature(each).parameters.values()
        for parameter in parameters:
            is_named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            if is_named and _is_offered(parameter.name):
                options.setdefault(parameter.name, parameter.default)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return options


def _is_offered(name: str) -> bool:
    return name not in _NOT_OFFERED and (not name.endswith("_layer") or name in _LAYERS_BY_NAME)


def check_options(options: Mapping[str, OptionValue], known: Mapping[str, Any], spelling: str) -> None:
    """Refuse an option that the model does not have, or a value of another kind than its default.

    Raises:
        UsageError: The message names what is known, or what was expected.
    """
    for name, value in options.items():
        if name not in known:
            takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
            raise UsageError(
                f"--model-option {quoted(name)}: {spelling} has no such option; {takes}.{nearest(name, known)}"
            )
        if expected := _expected(name, value, known[name]):
            raise UsageError(f"--model-option {name}={quoted(value)}: expected {expected}")


def _expected(name: str, value: OptionValue, default: Any) -> str | None:
    if name in _SIZES and isinstance(value, tuple):
        is_pair = len(value) == 2 and all(type(side) is int and 1 <= side <= _LARGEST for side in value)
        return None if is_pair else "a size such as 224 or 96,160"
    is_float = isinstance(default, float)
    at_least_one = type(value) is int and 1 <= value <= _LARGEST
    if name in _AT_LEAST_ONE and value is not None and not is_float and not at_least_one:
        return f"a whole number from 1 to {_LARGEST}"
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        is_count = type(value) is int and 0 <= value <= _LARGEST
        return None if is_count else f"a whole number from 0 to {_LARGEST}"
    if is_float:
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "a number"
    if isinstance(default, str):
        return None if isinstance(value, str) else f'a word such as "{default}"'
    return None


def refuse_contradictions(options: Mapping[str, OptionValue], told: Mapping[str, Any], weights: str) -> None:
    """Refuse an option that says something else than the weights file.

    Args:
        options: What the user says.
        told: What the weights tell.
        weights: How messages name the weights.

    Raises:
        UsageError: The message has both values.
    """
    for name, value in options.items():
        if name in told and value is not None and not _agree(value, told[name]):
            raise UsageError(
                f"--model-option {name}={quoted(shown(value))} contradicts {weights}: "
                f"{name}={shown(told[name])} there; "
                "leave the option out, or give the weights that go with it"
            )


def _agree(said: OptionValue, told: Any) -> bool:
    if isinstance(told, float):  # a starting value, of which only its being there is told
        return bool(said) == bool(told)
    pair = tuple(said) if isinstance(said, tuple) else (said, said)
    return pair == told if isinstance(told, tuple) else said == told


def check_nothing_is_drawn(
    options: Mapping[str, OptionValue],
    own: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
    spelling: str,
    *,
    resized: tuple[str, ...] = (),
    head: tuple[str, ...] = (),
) -> None:
    """Refuse options with which part of a pretrained model would be random, or left out.

    Args:
        options: What the user says.
        own: The state dict of the library's weights; only its shapes are read.
        wanted: That of the model with the options.
        spelling: The model, as messages name it.
        resized: Ends of names that the library resamples or adapts.
        head: Starts of names that may be left out.

    Raises:
        UsageError: The message names the tensors.
    """
    drawn = [
        name
        for name, tensor in wanted.items()
        if name not in own or (tensor.shape != own[name].shape and not name.endswith(resized))
    ]
    lost = [name for name in own if name not in wanted and not name.startswith(head)]
    if drawn or lost:
        what = "has no pretrained values for" if drawn else "would leave out"
        raise UsageError(
            f"{spelling} with {listed(options)} {what} {first_few(drawn or lost)}: "
            "give --weights FILE of a model that was trained so, or --weights random"
        )


def building_with(build: Callable[[], nn.Module], arguments: Mapping[str, Any], spelling: str) -> nn.Module:
    """Build a module, and take its refusal for one of the options that it was built with.

    Raises:
        UsageError: The library does not build it; the message quotes its reason.
    """
    if not arguments:
        return build()
    what = f"{spelling} cannot be built with {listed(arguments)}"
    with library_failures(UsageError, what, "give other values with --model-option, or leave them out"):
        return build()


def listed(arguments: Mapping[str, Any]) -> str:
    """Options as the command line takes them: `a=1, b=true`."""
    return ", ".join(f"{name}={quoted(shown(value))}" for name, value in arguments.items())


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return ",".join(shown(each) for each in value)
    return "none" if value is None else str(value)
