"""Models of torchvision: `torchvision:NAME` or `NAME/WEIGHTS`, e.g. `vit_b_16/IMAGENET1K_SWAG_E2E_V1`."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import VisionTransformer, WeightsEnum, get_model_weights, list_models
from torchvision.models.vision_transformer import interpolate_embeddings

from exporter.errors import ModelUnavailableError, UsageError, nearest
from exporter.models.class_names import imagenet_names, joined, unnamed_note
from exporter.models.fetch import fetching
from exporter.models.loaded import ClassNames, ExampleInput, LoadedModel
from exporter.models.model_options import building_with, check_nothing_is_drawn, check_options
from exporter.models.preprocessing.file import GUESSED
from exporter.models.preprocessing.preprocess import Preprocess
from exporter.models.preprocessing.resize import exact_fraction
from exporter.models.request import (
    OptionValue,
    ResolvedRequest,
    check_image_tower,
    check_multiple,
    safe_name,
    square_side,
)
from exporter.models.torchvision.file import (
    Filled,
    build_torchvision_from_file,
    classifier_of,
    create_torchvision,
    logits_of,
    torchvision_options,
)
from exporter.models.weights import build_on_meta, build_random, fill, sha256_of


def load_torchvision(asked: ResolvedRequest) -> LoadedModel:
    """Load a torchvision classifier.

    Raises:
        ModelUnavailableError: No such model or weights, or they cannot be fetched.
        UsageError: The image size does not fit, or a text tower was asked for.
        WeightsError: A weights file that does not fit.
    """
    check_image_tower(asked)
    name, weights = _name_and_weights(asked)
    preset = weights.transforms()
    built = _build(asked, name, weights)
    names, note = _class_names(asked, weights, built.classes)
    guess = f"{GUESSED}: that of {name}/{weights.name}; give --preprocess FILE.json to say it"
    about_photos = (guess,) if asked.weights_kind == "file" else ()
    return LoadedModel(
        module=built.module,
        source=asked.source,
        id=f"{name}/{weights.name}",
        name=safe_name(asked.id),
        inputs={"images": ExampleInput(shape=(3, built.size, built.size), dtype=torch.float32)},
        output_names=("logits" if built.classes else "features",),
        preprocess=asked.preprocess or _preprocess(preset, built.size),
        weights_kind=asked.weights_kind,
        weights_tag=weights.name if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(built.module.state_dict()),
        class_names=names,
        notes=(*built.notes, *about_photos, *note),
    )


def _name_and_weights(asked: ResolvedRequest) -> tuple[str, WeightsEnum]:
    name, _, tag = asked.id.partition("/")
    classifiers = list_models(module=torchvision.models)
    if name not in classifiers:
        raise ModelUnavailableError(f'torchvision has no classifier "{name}".{nearest(name, classifiers)}')
    choices = get_model_weights(name)
    names = [choice.name for choice in choices]
    if tag and tag not in names:
        raise ModelUnavailableError(
            f'torchvision has no weights "{tag}" for {name}: it has {", ".join(names)}.{nearest(tag, names)}'
        )
    return name, choices[tag or "DEFAULT"]


def _build(asked: ResolvedRequest, name: str, weights: WeightsEnum) -> Filled:
    own_size = int(weights.transforms().crop_size[0])
    default = build_on_meta(partial(create_torchvision, name, {}))
    options = asked.options
    check_options(options, torchvision_options(default), asked.spelling)
    if isinstance(options.get("image_size"), tuple):
        raise UsageError(f"{asked.spelling} takes square images only: expected one number as image_size")
    if asked.weights_kind == "file":
        _check_size(asked, default, square_side(asked) or own_size, own_size)
        return build_torchvision_from_file(asked, name, default, own_size)
    size = _size(asked, options, own_size)
    _check_size(asked, default, size, own_size)
    arguments = dict(options) | ({"image_size": size} if isinstance(default, VisionTransformer) else {})
    build = partial(create_torchvision, name, arguments)
    if options:
        building_with(partial(build_on_meta, build), options, asked.spelling)
    if asked.weights_kind == "random":
        module = build_random(build, asked.request.seed)
    else:
        module = _build_pretrained(asked, name, weights, arguments)
    return Filled(module=module, size=size, classes=logits_of(module, arguments), notes=())


def _size(asked: ResolvedRequest, options: Mapping[str, OptionValue], own_size: int) -> int:
    side, said = square_side(asked), options.get("image_size")
    if isinstance(said, int) and side not in (None, said):
        raise UsageError(f"--image-size {side} contradicts --model-option image_size={said}: leave one out")
    return side or (said if isinstance(said, int) else own_size)


def _check_size(asked: ResolvedRequest, default: nn.Module, size: int, own_size: int) -> None:
    if isinstance(default, VisionTransformer):
        check_multiple(size, default.patch_size, asked.spelling)
    elif size != own_size:
        raise UsageError(f"{asked.spelling} has no patch embedding to resize: leave --image-size out")


def _build_pretrained(
    asked: ResolvedRequest, name: str, weights: WeightsEnum, arguments: Mapping[str, Any]
) -> nn.Module:
    build = partial(create_torchvision, name, arguments)
    module: Any = build_on_meta(build)
    own_head = {key: value for key, value in arguments.items() if key == "image_size"}
    default = build_on_meta(partial(create_torchvision, name, own_head))
    head = (f"{classifier_of(default)}.",) if arguments.get("num_classes") == 0 else ()
    if asked.options:
        check_nothing_is_drawn(
            asked.request.options,
            default.state_dict(),
            module.state_dict(),
            asked.spelling,
            head=head,
        )
    with fetching(f"the weights of torchvision:{name}/{weights.name}", via="url"):
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    if isinstance(module, VisionTransformer):
        state = interpolate_embeddings(module.image_size, module.patch_size, state)
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(head)}
    return fill(build, kept, asked.spelling)


def _class_names(
    asked: ResolvedRequest, weights: WeightsEnum, classes: int
) -> tuple[ClassNames | None, tuple[str, ...]]:
    """The categories of the library's own weights; a file does not name its classes."""
    categories: tuple[str, ...] = tuple(weights.meta["categories"])
    if asked.weights_kind == "random" or classes != len(categories):
        return None, ()
    if asked.weights_kind == "file":
        return None, (unnamed_note(classes),)
    return joined(categories, imagenet_names(classes)), ()


def _preprocess(preset: Any, size: int) -> Preprocess:
    """As the preset on a PIL image; it takes RGB only, which torchvision's loader converts to before.

    The preset's `antialias` is about tensors: Pillow always smooths.
    """
    crop_to, resize_to = int(preset.crop_size[0]), int(preset.resize_size[0])
    return Preprocess(
        image_size=(size, size),
        interpolation=preset.interpolation.value,
        crop_fraction=exact_fraction(size, size * resize_to // crop_to),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
