"""Models of torchvision: `torchvision:NAME` or `NAME/WEIGHTS`, e.g. `vit_b_16/IMAGENET1K_SWAG_E2E_V1`."""

from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models
from torchvision.models.vision_transformer import interpolate_embeddings

from exporter.errors import ModelUnavailableError, UsageError, nearest
from exporter.models.fetch import fetching
from exporter.models.loaded import ExampleInput, LoadedModel
from exporter.models.preprocess import Preprocess
from exporter.models.request import ResolvedRequest, check_image_tower, check_multiple, safe_name, square_side
from exporter.models.resize import Interpolation, exact_fraction
from exporter.models.weights import build_from_file, build_random, check_state_dict, freeze, sha256_of

_INTERPOLATIONS: dict[str, Interpolation] = {
    "bicubic": "bicubic",
    "bilinear": "bilinear",
    "nearest": "nearest",
}


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
    own_size = int(preset.crop_size[0])
    size = square_side(asked) or own_size
    module = _build(asked, name, weights, size)
    return LoadedModel(
        module=module,
        source=asked.source,
        id=f"{name}/{weights.name}",
        alias=None,
        name=safe_name(asked.id),
        input_name="images",
        output_names=("logits",),
        example_input=ExampleInput(shape=(3, size, size), dtype=torch.float32),
        preprocess=_preprocess(preset, size),
        weights_kind=asked.weights_kind,
        weights_tag=weights.name if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(module.state_dict()),
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


def _build(asked: ResolvedRequest, name: str, weights: WeightsEnum, size: int) -> nn.Module:
    own_size = int(weights.transforms().crop_size[0])
    arguments: dict[str, Any] = {}
    if _takes_image_size(name):
        arguments["image_size"] = size
        with torch.device("meta"):
            patch = int(get_model(name).patch_size)
        check_multiple(size, patch, asked.spelling)
    elif size != own_size:
        raise UsageError(f"{asked.spelling} has no patch embedding to resize: leave --image-size out")

    def build() -> nn.Module:
        module: nn.Module = get_model(name, weights=None, **arguments)
        return module

    match asked.weights_kind:
        case "pretrained":
            return _build_pretrained(asked, name, weights, size, arguments)
        case "random":
            return build_random(build, asked.request.seed)
        case _:
            return build_from_file(build, asked.weights_path)


def _takes_image_size(name: str) -> bool:
    return name.startswith("vit_")


def _build_pretrained(
    asked: ResolvedRequest, name: str, weights: WeightsEnum, size: int, arguments: dict[str, Any]
) -> nn.Module:
    with fetching(f"the weights of torchvision:{name}/{weights.name}", via="url"):
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    module = get_model(name, weights=None, **arguments)
    if arguments:
        state = interpolate_embeddings(size, module.patch_size, state)
    check_state_dict(module.state_dict(), state, asked.spelling)
    module.load_state_dict(state, assign=True)
    return freeze(module)


def _preprocess(preset: Any, size: int) -> Preprocess:
    """As the preset on a PIL image; it takes RGB only, which torchvision's loader converts to before.

    The preset's `antialias` is about tensors: Pillow always smooths.
    """
    crop_to, resize_to = int(preset.crop_size[0]), int(preset.resize_size[0])
    return Preprocess(
        image_size=(size, size),
        interpolation=_INTERPOLATIONS[preset.interpolation.value],
        crop_fraction=exact_fraction(size, size * resize_to // crop_to),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
