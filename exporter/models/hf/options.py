"""`--model-option NAME=VALUE` of a transformers model: the keys of its configuration that decide what is built."""

from exporter.errors import UsageError
from exporter.models.hf.tower import HFTower
from exporter.models.model_options import check_options
from exporter.models.request import ResolvedRequest

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
    if "image_size" in options:
        raise UsageError(f"{asked.spelling}: --model-option image_size is set by --image-size")
    known = {
        name: getattr(config, name)
        for config in (tower.build.config, tower.config)
        for name in NAMES
        if hasattr(config, name)
    }
    check_options(options, known, asked.spelling)
    return tower.with_config(options) if options else tower
