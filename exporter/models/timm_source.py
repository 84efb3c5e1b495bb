"""Models of timm: `timm:NAME` or `timm:NAME.TAG`, by the names of its registry."""

from functools import partial
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from torch import nn

from exporter.errors import ModelUnavailableError, UsageError, nearest
from exporter.models.fetch import fetching
from exporter.models.loaded import ExampleInput, LoadedModel, OutputName
from exporter.models.preprocess import Preprocess
from exporter.models.quiet import quiet
from exporter.models.request import ResolvedRequest, check_image_tower, check_multiple, safe_name
from exporter.models.resize import ResizeMode
from exporter.models.weights import build_from_file, build_random, freeze, sha256_of

# What timm calls its crop modes.
_RESIZE_MODES: dict[str, ResizeMode] = {"center": "crop", "squash": "squash", "border": "pad"}


def load_timm(asked: ResolvedRequest) -> LoadedModel:
    """Load a timm model.

    Args:
        asked: `id` is a registry name, with or without a weight tag; without one timm's default tag is taken.

    Raises:
        ModelUnavailableError: No such name or tag, or the weights cannot be fetched.
        UsageError: The image size does not fit, or a text tower was asked for.
        WeightsError: A weights file that does not fit.
    """
    check_image_tower(asked)
    architecture, tag = _architecture_and_tag(asked)
    config = timm.get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)
    own_size = _own_size(architecture, config)
    size = asked.image_size or own_size
    arguments: dict[str, Any] = {}
    if size != own_size:
        _check_image_size(asked, architecture)
        arguments["img_size"] = size
    full_name = f"{architecture}.{tag}" if tag else architecture
    module = _build(asked, full_name, arguments)
    return LoadedModel(
        module=module,
        source=asked.source,
        id=full_name,
        alias=asked.alias.name if asked.alias else None,
        name=safe_name(asked.spelling.removeprefix("timm:")),
        input_name="images",
        output_names=(_output_name(module, architecture, tag),),
        example_input=ExampleInput(shape=(3, *size), dtype=torch.float32),
        preprocess=_preprocess(module, size),
        weights_kind=asked.weights_kind,
        weights_tag=tag if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(module.state_dict()),
        proportional_attention=not tag.startswith("mae"),
    )


def _architecture_and_tag(asked: ResolvedRequest) -> tuple[str, str]:
    architecture, _, tag = asked.id.partition(".")
    if asked.alias:
        tag = asked.alias.weights
    if not timm.is_model(architecture):
        hint = nearest(architecture, timm.list_models())
        raise ModelUnavailableError(f'timm {timm.__version__} has no model "{architecture}".{hint}')
    tags = [name.partition(".")[2] for name in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        known = f"it has {', '.join(tags)}" if tags else "it has none"
        raise ModelUnavailableError(
            f'timm {timm.__version__} has no weights "{tag}" for {architecture}: {known}.{nearest(tag, tags)}'
        )
    if not tag and not tags and asked.weights_kind == "pretrained":
        raise ModelUnavailableError(
            f"timm has no pretrained weights for {architecture}; give --weights FILE.safetensors or random"
        )
    config = timm.get_pretrained_cfg(architecture)
    return architecture, tag or (config.tag if config is not None else "") or ""


def _own_size(architecture: str, config: Any) -> tuple[int, int]:
    if config is None:
        raise ModelUnavailableError(
            f"timm has no configuration for {architecture}: its input size is not known"
        )
    _, height, width = config.input_size
    return height, width


def _check_image_size(asked: ResolvedRequest, architecture: str) -> None:
    """Refuse a size that the model's patches do not tile, or a model that has no patches of a fixed size."""
    with quiet(), torch.device("meta"):
        embedding = getattr(timm.create_model(architecture), "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if patch is None:
        raise UsageError(f"{asked.spelling} has no patch embedding to resize: leave --image-size out")
    height, width = (patch, patch) if isinstance(patch, int) else patch
    assert asked.image_size is not None
    check_multiple(asked.image_size, (height, width), asked.spelling)


def _build(asked: ResolvedRequest, full_name: str, arguments: dict[str, Any]) -> nn.Module:
    build = partial(_create, asked, full_name, arguments)
    match asked.weights_kind:
        case "pretrained":
            with fetching(f"the weights of timm:{full_name}"):
                return freeze(build(pretrained=True))
        case "random":
            with quiet():
                return build_random(build, asked.request.seed)
        case _:
            with quiet():
                return build_from_file(build, asked.weights_path)


def _create(
    asked: ResolvedRequest, full_name: str, arguments: dict[str, Any], *, pretrained: bool = False
) -> nn.Module:
    try:
        module: nn.Module = timm.create_model(full_name, pretrained=pretrained, **arguments)
    except TypeError as error:
        if not arguments:
            raise
        raise UsageError(f"{asked.spelling} has one fixed input size: leave --image-size out") from error
    return module


def _output_name(module: nn.Module, architecture: str, tag: str) -> OutputName:
    """CLIP and SigLIP towers embed unless fine-tuned into classifiers; headless models give features."""
    if ("clip" in architecture or "siglip" in architecture) and "ft_" not in tag:
        return "embedding"
    return "logits" if getattr(module, "num_classes", 0) else "features"


def _preprocess(module: Any, size: tuple[int, int]) -> Preprocess:
    """As timm's evaluation transform; its loader converts to RGB before."""
    data: dict[str, Any] = resolve_data_config(  # type: ignore[no-untyped-call]
        {}, pretrained_cfg=module.pretrained_cfg
    )
    if data["crop_mode"] not in _RESIZE_MODES:
        raise ModelUnavailableError(
            f'crop mode "{data["crop_mode"]}" is not supported: expected {", ".join(_RESIZE_MODES)}'
        )
    return Preprocess(
        image_size=size,
        interpolation=data["interpolation"],
        crop_fraction=data["crop_pct"],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        resize_mode=_RESIZE_MODES[data["crop_mode"]],
        fill=tuple(round(255 * value) for value in data["mean"])
        if data["crop_mode"] == "border"
        else (0, 0, 0),
    )
