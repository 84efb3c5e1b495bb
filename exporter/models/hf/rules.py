"""Which class a checkpoint's tower is, and what is taken of its output: by rule, from the configuration and the class.

In: a configuration; out: an `HFTower`. The rules, in order:

1. The tower's own part is the (sub-)configuration with `image_size` and `patch_size`, or with a vocabulary.
2. `...ForImageClassification` (`...ForAudioClassification`) gives its logits.
3. A model of images and texts gives what its own `get_image_features` (`get_text_features`) returns: by the class
   `...WithProjection` where there is one, by the tower's own class where nothing is projected, else by the whole model
   less the parts that the call does not need.
4. Of any other model that has parts, the tower is the sub-module that takes pixels (`inside`). It gives what another
   part reads, where the configuration says that, or the joint embedding, where there are heads for one (`contrastive`).
5. A tower by itself, or inside, gives the projection's output; else what its pooler makes, unless that is a layer that
   only pretraining used; else the class token; else, with a note, the mean of the tokens.

Whether a class does that at all is asked of the class: it is run on the meta device, which costs no weights.
"""

import copy
import sys
from dataclasses import replace
from typing import Any

from torch import nn

from exporter.errors import ModelUnavailableError, UsageError, library_failures, quoted
from exporter.models.hf.architectures import (
    DEFAULT_ARCHITECTURES,
    POOLED_IS_EMBEDDING,
    PRETRAINING_HEADS,
    SEES_ALL_PATCHES,
)
from exporter.models.hf.contrastive import half_of
from exporter.models.hf.inside import read_layers, tower_inside
from exporter.models.hf.module import (
    Build,
    Call,
    Pick,
    on_meta,
    run_on_meta,
    unwrap,
    watching_children,
    whole_on_meta,
)
from exporter.models.hf.patches import not_patches
from exporter.models.hf.tower import HFTower, Side, example_of
from exporter.models.loaded import OutputName

EXPECTED = (
    "expected ViT, DeiT, BEiT, DINOv2, CLIP, SigLIP or another model of square patches: an image classifier "
    "(...ForImageClassification), an encoder (...Model), or a model of images and texts"
)

UNBUILT = "which cannot be built or run here"

_PART: dict[Side, str] = {"image": "vision_config", "text": "text_config"}
_CALL: dict[Side, Call] = {"image": "get_image_features", "text": "get_text_features"}
_SUFFIX: dict[Side, str] = {"image": "VisionModelWithProjection", "text": "TextModelWithProjection"}
MAPS: dict[str, Pick] = {
    "ForDepthEstimation": "predicted_depth",
    "ForSemanticSegmentation": "logits",
    "ForPoseEstimation": "heatmaps",
    "Backbone": "feature_maps",
}
"""Ends of the names of classes that predict something for every place of an image, and what of their output that is."""
_MAPS_HINT = "; with --outputs dense its maps are exported"
_CLASSIFIERS = ("ForImageClassification", "ForImageClassificationWithTeacher", "ForAudioClassification")


def find_tower(spelling: str, config: Any, side: Side) -> HFTower:
    """Find the class of a checkpoint's tower.

    Args:
        spelling: The model, as messages name it.
        config: Of the checkpoint.
        side: Which tower.

    Raises:
        ModelUnavailableError: It is no model of patches, or no class of it can be run on images or tokens alone.
        UsageError: It has the other tower only.
    """
    name, model_class, config, notes = class_of(spelling, config)
    tower = (_image_tower if side == "image" else _text_tower)(spelling, model_class, config)
    return replace(tower, architecture=name, notes=(*notes, *tower.notes))


def class_of(spelling: str, config: Any) -> tuple[str, Any, Any, tuple[str, ...]]:
    """The name that a checkpoint gives its class, the class, the configuration that it takes, and what was guessed.

    Raises:
        ModelUnavailableError: transformers has no such class, or the parts of the configuration contradict each other.
    """
    name, notes = _architecture(spelling, config)
    model_class = _class_named(spelling, name)
    return name, model_class, _config_of(spelling, config, model_class), notes


def _architecture(spelling: str, config: Any) -> tuple[str, tuple[str, ...]]:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    if named := getattr(config, "architectures", None):
        return str(named[0]), ()
    plain = MODEL_MAPPING_NAMES.get(config.model_type)
    name = DEFAULT_ARCHITECTURES.get(config.model_type) or (plain if isinstance(plain, str) else None)
    if name is None:
        raise ModelUnavailableError(
            f"{spelling} has a config.json without architectures, and {quoted(config.model_type)} has no plain model: "
            "name the class there"
        )
    return name, (f"architecture guessed: {name} (config.json names none; by its model_type)",)


def _class_named(spelling: str, name: str) -> Any:
    import transformers

    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise ModelUnavailableError(f"{spelling} is a {quoted(name)}: {EXPECTED}")
    return found


def _config_of(spelling: str, config: Any, model_class: Any) -> Any:
    """The configuration that the class takes: the checkpoint's own, or the part of it that was saved for it."""
    for part in (config, *(getattr(config, name, None) for name in _PART.values())):
        if isinstance(part, model_class.config_class):
            return _with_projection(part, config)
    raise ModelUnavailableError(
        f"{spelling} has a config.json whose parts contradict each other: its model_type {quoted(config.model_type)} "
        f"does not go with {model_class.__name__}, which takes {model_class.config_class.model_type}"
    )


def _with_projection(part: Any, config: Any) -> Any:
    """A copy of a part, with the width of the joint embedding, which CLIP keeps a level up."""
    part = copy.deepcopy(part)
    if hasattr(part, "projection_dim") and getattr(config, "projection_dim", None):
        part.projection_dim = config.projection_dim
    return part


def _image_tower(spelling: str, model_class: Any, config: Any) -> HFTower:
    name = model_class.__name__
    part = _PART["image"] if hasattr(config, _PART["image"]) else None
    complaint = not_patches(getattr(config, part) if part else config)
    is_of_two = part and hasattr(model_class, _CALL["image"]) and hasattr(model_class, _CALL["text"])
    is_classifier = name.endswith(_CLASSIFIERS)
    with library_failures(ModelUnavailableError, f"{spelling} is a {name}, {UNBUILT}", EXPECTED):
        if complaint is None and is_classifier:
            return _tower(Build(model_class=model_class, config=config, pick="logits"), "logits", part)
        if complaint is None and is_of_two:
            return _of_two(model_class, config, "image")
        if complaint is None and part is None:
            return _alone(spelling, model_class, config)
        if _has_parts(config) and not (is_of_two or is_classifier):
            return _inside(spelling, model_class, config)
    if part is None and _is_text(model_class):
        raise UsageError(f"{spelling} is a {name}, which has no image tower: change --tower")
    raise ModelUnavailableError(f"{spelling} is a {name}, {complaint}: {EXPECTED}")


def _has_parts(config: Any) -> bool:
    from transformers import PreTrainedConfig

    return any(isinstance(each, PreTrainedConfig) for each in vars(config).values())


def _text_tower(spelling: str, model_class: Any, config: Any) -> HFTower:
    name = model_class.__name__
    with library_failures(ModelUnavailableError, f"{spelling} is a {name}, {UNBUILT}", EXPECTED):
        if hasattr(model_class, _CALL["text"]) and hasattr(config, _PART["text"]):
            return _of_two(model_class, config, "text")
        if hasattr(config, _PART["text"]) and (half := half_of(whole_on_meta(model_class, config), "text")):
            padding = config.text_config.pad_token_id
            build = Build(model_class=half, config=config, pick="pooler_output", padding=padding)
            return replace(_tower(build, "embedding", _PART["text"]), whole=(model_class, config))
        if not _is_text(model_class):
            raise UsageError(
                f"{spelling} is a {name}, which has no text tower: expected a model of images and texts, such as "
                "CLIP or SigLIP; change --tower"
            )
        pick: Any = "text_embeds" if name.endswith(_SUFFIX["text"]) else "pooler_output"
        build = Build(model_class=model_class, config=config, pick=pick)
        return _tower(build, _pooled_name(config) if pick == "pooler_output" else "embedding")


def _tower(build: Build, output_name: OutputName, part: str | None = None) -> HFTower:
    """A tower that is built by the class of the checkpoint itself."""
    return HFTower(
        architecture=build.model_class.__name__,
        build=build,
        part=part,
        output_name=output_name,
        whole=(build.model_class, build.config),
    )


def _is_text(model_class: Any) -> bool:
    takes_tokens = model_class.main_input_name == "input_ids"
    return takes_tokens and any(hasattr(other, _CALL["text"]) for other in neighbours(model_class))


def neighbours(model_class: Any) -> list[Any]:
    """All classes of the module that a class is from."""
    return [each for each in vars(sys.modules[model_class.__module__]).values() if isinstance(each, type)]


def _of_two(model_class: Any, config: Any, side: Side) -> HFTower:
    """The tower of a model of images and texts: what its own `get_..._features` returns."""
    whole = on_meta(model_class, config)
    part = getattr(config, _PART[side])
    with watching_children(whole) as called:
        run_on_meta(whole, example_of(part, side), _CALL[side])
    own = Build(model_class=model_class, config=config, pick="pooler_output", call=_CALL[side])
    tower = _tower(own, "embedding", _PART[side])
    alone = getattr(whole, next(iter(called))) if len(called) == 1 else None
    projected = _projected_class(model_class, part, side)
    if projected is None and not hasattr(alone, "from_pretrained"):
        others = [name for name, _ in whole.named_children() if name not in called]
        parameters = [name for name, _ in whole.named_parameters(recurse=False)]
        return replace(tower, build=replace(own, unused=(*others, *parameters)))
    build = Build(
        model_class=projected or type(alone),
        config=_with_projection(part, config),
        pick=("image_embeds" if side == "image" else "text_embeds") if projected else "pooler_output",
    )
    # a class whose names begin elsewhere than the tower's does not find them in the checkpoint
    path = None if projected or build.model_class.base_model_prefix in called else next(iter(called))
    return replace(tower, build=build, part=None, path=path)


def _projected_class(model_class: Any, part: Any, side: Side) -> Any:
    return next(
        (
            other
            for other in neighbours(model_class)
            if other.__name__.endswith(_SUFFIX[side]) and other.config_class is type(part)
        ),
        None,
    )


def _inside(spelling: str, model_class: Any, config: Any) -> HFTower:
    """The image tower of a model that makes text, maps or boxes of images, by itself."""
    name = model_class.__name__
    if name.endswith(tuple(MAPS)):
        raise ModelUnavailableError(f"{spelling} is a {name}: {EXPECTED}{_MAPS_HINT}")
    whole = whole_on_meta(model_class, config)
    if (half := half_of(whole, "image")) is not None:
        tower = _tower(
            Build(model_class=half, config=config, pick="pooler_output"), "embedding", _PART["image"]
        )
        return replace(tower, whole=(model_class, config))
    path = tower_inside(whole, f"{spelling} is a {name}", EXPECTED)
    part: Any = whole.get_submodule(path)
    arguments = {"add_pooling_layer": False} if has_untrained_pooler(part) else {}
    tower = HFTower(
        architecture=name,
        build=Build(model_class=type(part), config=part.config, pick="pooler_output", arguments=arguments),
        part=None,
        path=path,
        output_name="features",
        whole=(model_class, config),
    )
    if (read := read_layers(config, f"{spelling} is a {name}")) is not None:
        build = replace(tower.build, pick="hidden_states", read=read)
        run_on_meta(
            unwrap(on_meta(type(part), part.config, arguments), build), example_of(part.config, "image")
        )
        return replace(tower, build=build, output_name="tokens")
    return _picked(tower, on_meta(type(part), part.config, arguments))


def _alone(spelling: str, model_class: Any, config: Any) -> HFTower:
    name = model_class.__name__
    built: Any = model_class
    own = config
    if name.endswith(PRETRAINING_HEADS) or config.model_type in SEES_ALL_PATCHES:
        built, own = plain(config)
    elif "For" in name or name.endswith("Backbone"):
        hint = _MAPS_HINT if name.endswith(tuple(MAPS)) else ""
        raise ModelUnavailableError(f"{spelling} is a {name}: {EXPECTED}{hint}")
    inside = on_meta(built, own)
    arguments = {"add_pooling_layer": False} if has_untrained_pooler(inside) else {}
    tower = HFTower(
        architecture=name,
        build=Build(model_class=built, config=own, pick="pooler_output", arguments=arguments),
        part=None,
        output_name=_pooled_name(config),
        whole=(model_class, config),
    )
    return _picked(tower, on_meta(built, own, arguments))


def plain(config: Any) -> tuple[Any, Any]:
    """The plain model that a family's heads for pretraining stand on, seeing all patches."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    if family := SEES_ALL_PATCHES.get(config.model_type):
        kept = {
            key: value
            for key, value in config.to_dict().items()
            if key not in ("model_type", "architectures")
        }
        config = CONFIG_MAPPING[family](**kept)
    return MODEL_MAPPING[type(config)], copy.deepcopy(config)


def has_untrained_pooler(model: nn.Module) -> bool:
    """Whether its pooler has a dense layer of its own, which only pretraining of another kind trains (BERT's)."""
    pooler = getattr(model, "pooler", None)
    return isinstance(pooler, nn.Module) and any(isinstance(each, nn.Linear) for each in pooler.modules())


def _picked(tower: HFTower, inside: nn.Module) -> HFTower:
    """Decide what is taken of the output, by what there is."""
    output = run_on_meta(inside, example_of(tower.config, "image"))
    if getattr(output, "image_embeds", None) is not None:
        return replace(tower, build=replace(tower.build, pick="image_embeds"), output_name="embedding")
    if getattr(output, "pooler_output", None) is not None:
        return tower
    rows, columns = tower.grid
    tokens = output.last_hidden_state
    if tokens.dim() != 3 or tokens.shape[1] < rows * columns:
        raise ValueError(f"expected {rows * columns} tokens or more, got a shape of {tuple(tokens.shape)}")
    if tokens.shape[1] > rows * columns:
        return replace(tower, build=replace(tower.build, pick="class_token"), output_name="features")
    note = f"features are the mean of the tokens: {tower.architecture} has neither a class token nor a pooler"
    return replace(
        tower, build=replace(tower.build, pick="mean"), output_name="features", notes=(*tower.notes, note)
    )


def _pooled_name(config: Any) -> OutputName:
    return "embedding" if config.model_type in POOLED_IS_EMBEDDING else "features"
