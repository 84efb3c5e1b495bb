"""Models of timm that transformers wraps: `model_type: timm_wrapper`, or timm's own configuration on the hub.

The wrapper is taken off once its weights are loaded: what is captured is timm's module, whose output is what the
wrapper returns.
"""

from types import SimpleNamespace
from typing import Any

import torch

from exporter.errors import ModelUnavailableError, UsageError, quoted
from exporter.models.hf_errors import explained, refused_as_usage
from exporter.models.hf_labels import read_class_names
from exporter.models.hf_module import Build
from exporter.models.hf_place import Place
from exporter.models.hf_tower import HFTower
from exporter.models.hf_weights import build_model, find_weights
from exporter.models.loaded import ExampleInput, LoadedModel
from exporter.models.quiet import quiet
from exporter.models.request import (
    ImageSize,
    ResolvedRequest,
    check_image_tower,
    check_multiple,
    safe_name,
    size_text,
)
from exporter.models.timm_source import _preprocess as timm_preprocess
from exporter.models.weights import freeze, sha256_of

_CLASSIFIER = "TimmWrapperForImageClassification"


def load_timm_wrapper(asked: ResolvedRequest, place: Place, config: Any) -> LoadedModel:
    """Load a model of timm through transformers' wrapper.

    Args:
        asked: The request.
        place: The checkpoint.
        config: Of the wrapper.

    Raises:
        ModelUnavailableError: timm does not have the architecture, or the checkpoint cannot be read.
        UsageError: The image size does not fit, or options or a text tower were asked for.
        WeightsError: The weights do not fit.
    """
    check_image_tower(asked)
    if asked.request.options:
        raise UsageError(
            f"{asked.spelling} wraps a model of timm, whose options are in its config.json (model_args): leave "
            "--model-option out, or give the model as timm:NAME"
        )
    pretrained_cfg = _pretrained_cfg(config, asked.spelling)
    channels, *sides = (int(number) for number in pretrained_cfg["input_size"])
    own = _own_size(config, (sides[0], sides[1]))
    size = asked.image_size or own
    with explained("the model of timm", place, advice="correct architecture and model_args in config.json"):
        tower = _tower(config)
        weights = find_weights(asked, place, tower)
        module = freeze(build_model(weights, tower).get_submodule("timm_model"))
    if size != own:
        _set_image_size(module, size, asked.spelling)
    classes = int(getattr(module, "num_classes", 0))
    class_names, unnamed = read_class_names(config, classes) if classes else (None, ())
    return LoadedModel(
        module=module,
        source=asked.source,
        id=place.name if place.folder else asked.id,
        alias=None,
        name=safe_name(place.name),
        input_name="images",
        output_names=("logits" if classes else "features",),
        example_input=ExampleInput(shape=(channels, *size), dtype=torch.float32),
        preprocess=None
        if asked.preprocess
        else timm_preprocess(SimpleNamespace(pretrained_cfg=pretrained_cfg), size),
        weights_kind=asked.weights_kind,
        weights_tag=getattr(config, "_commit_hash", None) if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(module.state_dict()),
        proportional_attention=not str(pretrained_cfg.get("tag", "")).startswith("mae"),
        class_names=class_names,
        notes=(
            f"the model is {quoted(config.architecture)} of timm, which transformers wraps",
            *weights.notes,
            *unnamed,
        ),
    )


def _pretrained_cfg(config: Any, spelling: str) -> dict[str, Any]:
    """What the configuration says about images; else what timm says about the architecture."""
    import timm

    found = getattr(config, "pretrained_cfg", None)
    if not isinstance(found, dict):
        own = timm.get_pretrained_cfg(str(config.architecture))
        found = {} if own is None else own.to_dict()  # type: ignore[no-untyped-call]
    size = found.get("input_size")
    if not (
        isinstance(size, (list, tuple)) and len(size) == 3 and all(isinstance(side, int) for side in size)
    ):
        raise ModelUnavailableError(
            f"{spelling} wraps {quoted(config.architecture)} of timm {timm.__version__}, whose input size is not "
            "known: expected pretrained_cfg with input_size in config.json"
        )
    return found


def _own_size(config: Any, default: ImageSize) -> ImageSize:
    size = (config.model_args or {}).get("img_size", default)
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _tower(config: Any) -> HFTower:
    import transformers

    name = (config.architectures or [_CLASSIFIER])[0]
    is_classifier = name == _CLASSIFIER and config.num_labels
    model_class = (
        transformers.TimmWrapperForImageClassification if is_classifier else transformers.TimmWrapperModel
    )
    return HFTower(
        architecture=name,
        build=Build(
            model_class=model_class, config=config, pick="logits" if is_classifier else "pooler_output"
        ),
        part=None,
        output_name="logits" if is_classifier else "features",
        whole=(transformers.TimmWrapperForImageClassification if config.num_labels else model_class, config),
    )


def _set_image_size(module: Any, size: ImageSize, spelling: str) -> None:
    """Resample positions by timm's own method."""
    patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    if patch is None or not hasattr(module, "set_input_size"):
        raise UsageError(f"{spelling} has no patch embedding to resize: leave --image-size out")
    check_multiple(size, patch, spelling)
    with (
        refused_as_usage(f"{spelling} cannot take images of {size_text(size)}: leave --image-size out"),
        quiet(),
    ):
        module.set_input_size(img_size=size)
    module.requires_grad_(False)
