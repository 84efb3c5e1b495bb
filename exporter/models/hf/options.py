"""`--model-option NAME=VALUE` of a transformers model: the keys of its configuration that decide what is built."""

from typing import Any

from exporter.errors import UsageError, nearest, quoted
from exporter.models.hf.tower import HFTower
from exporter.models.request import OptionValue, ResolvedRequest

# What may be set: the parts of a model that checkpoints of one architecture differ in, and nothing about how or
# where it runs.
NAMES = (
    "attention_bias",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "layerscale_value",
    "mlp_bias",
    "mlp_ratio",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "num_labels",
    "num_register_tokens",
    "patch_size",
    "projection_dim",
    "qkv_bias",
    "use_absolute_position_embeddings",
    "use_gated_mlp",
    "use_mean_pooling",
    "use_qk_norm",
    "use_shared_relative_position_bias",
    "use_swiglu_ffn",
    "vision_use_head",
)


def apply_options(tower: HFTower, asked: ResolvedRequest) -> HFTower:
    """Set the keys of the configuration that the request names.

    Raises:
        UsageError: No such key may be set of this model, or the value is of another kind.
    """
    options = asked.request.options
    settable = [name for name in NAMES if hasattr(tower.config, name) or hasattr(tower.build.config, name)]
    for name, value in options.items():
        if name not in settable:
            hint = nearest(name, settable)
            why = "set by --image-size" if name == "image_size" else f"expected one of {', '.join(settable)}"
            raise UsageError(f'{asked.spelling} has no option "{quoted(name)}" of the model: {why}.{hint}')
        _check(name, value, _present(tower, name), asked.spelling)
    return tower.with_config(options) if options else tower


def _present(tower: HFTower, name: str) -> Any:
    return getattr(tower.config, name, getattr(tower.build.config, name, None))


def _check(name: str, value: OptionValue, present: Any, spelling: str) -> None:
    if present is not None and not _is_like(value, present):
        raise UsageError(
            f"--model-option {name}={quoted(value)} does not fit {spelling}: expected a "
            f"{type(present).__name__}, such as {quoted(present)}"
        )
    if not isinstance(value, bool) and isinstance(value, int) and value < (name != "num_labels"):
        raise UsageError(f"--model-option {name}={value} does not fit {spelling}: expected a positive number")


def _is_like(value: OptionValue, present: object) -> bool:
    if isinstance(present, float) and not isinstance(value, bool):
        return isinstance(value, (int, float))
    return type(value) is type(present)
