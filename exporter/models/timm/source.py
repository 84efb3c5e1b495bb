"""Models of timm: `timm:NAME` or `timm:NAME.TAG` by its registry, `timm:local-dir:FOLDER` and `timm:hf-hub:OWNER/NAME`.

A file of weights may differ from the registry's architecture in its free parameters: they are taken from the file.
"""

from functools import partial
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from torch import nn

from exporter.errors import ModelUnavailableError, UsageError, library_failures, quoted
from exporter.models.class_names import imagenet_names, listed_names, unnamed_note
from exporter.models.fetch import fetching
from exporter.models.loaded import ClassNames, ExampleInput, LoadedModel, OutputName
from exporter.models.model_options import (
    building_with,
    check_nothing_is_drawn,
    check_options,
    constructor_options,
)
from exporter.models.preprocessing.file import GUESSED, SAY_IT
from exporter.models.preprocessing.preprocess import CHANNELS, ChannelOrder, Preprocess, channel_order
from exporter.models.preprocessing.resize import ResizeMode
from exporter.models.quiet import quiet
from exporter.models.request import ImageSize, ResolvedRequest, check_image_tower, size_text
from exporter.models.timm.file import (
    Filled,
    build_timm_from_file,
    check_patches,
    create_timm,
    default_size,
    said_size,
)
from exporter.models.timm.model import TimmModel, find_timm_model
from exporter.models.timm.parameters import first_convolution
from exporter.models.weights import build_on_meta, build_random, freeze, sha256_of

# What timm calls its crop modes.
_RESIZE_MODES: dict[str, ResizeMode] = {"center": "crop", "squash": "squash", "border": "pad"}

# Of a model whose weights are the library's own, these may differ in shape: the library resamples or adapts them.
_ADAPTED = ("pos_embed", "patch_embed.proj.weight")


def load_timm(asked: ResolvedRequest) -> LoadedModel:
    """Load a timm model.

    Args:
        asked: `id` is a registry name, with or without a weight tag (without one timm's default tag is taken), a
            folder that timm saved, or a repository of the hub.

    Raises:
        ModelUnavailableError: No such name, tag or folder, or the weights cannot be fetched.
        UsageError: The image size or an option does not fit, or a text tower was asked for.
        WeightsError: A weights file that does not fit.
    """
    check_image_tower(asked)
    return load_timm_model(asked, find_timm_model(asked))


def load_timm_model(asked: ResolvedRequest, model: TimmModel) -> LoadedModel:
    """Load a timm model that has been found, also for another source (a `timm_wrapper` of transformers).

    Args:
        asked: The weights, options and image size that are wanted; `source` is kept.
        model: From `find_timm_model`, or `saved_timm_model` for a folder with `config.json`.

    Raises:
        ModelUnavailableError, UsageError, WeightsError: As `load_timm`.
    """
    with quiet():
        built = _build(asked, model)
    module: Any = built.module
    classes = getattr(module, "num_classes", 0)
    names, note = _class_names(asked, model, classes)
    channels = _channels(module)
    preprocess, about_channels = _preprocess_of(asked, model, module, channels, built.size)
    return LoadedModel(
        module=module,
        source=asked.source,
        id=model.id,
        name=model.name,
        inputs={"images": ExampleInput(shape=(channels, *built.size), dtype=torch.float32)},
        output_names=(_output_name(module, model),),
        preprocess=preprocess,
        weights_kind=asked.weights_kind,
        weights_tag=model.weights_tag if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(module.state_dict()),
        proportional_attention=not model.tag.startswith("mae"),
        class_names=names,
        notes=(*built.notes, *about_channels, *note),
    )


def _build(asked: ResolvedRequest, model: TimmModel) -> Filled:
    default = _default(model)
    takes = constructor_options(type(default))
    check_options(asked.request.options, takes, asked.spelling)
    path = asked.weights_path if asked.weights_kind == "file" else model.weights
    if path is not None and asked.weights_kind != "random":
        return build_timm_from_file(asked, model, default, takes, path)
    size, arguments = _arguments(asked, model, default)
    if asked.weights_kind == "random":
        module = build_random(partial(create_timm, model, arguments), asked.request.seed)
        return Filled(module=module, size=size, notes=())
    if asked.request.options:
        wanted = build_on_meta(partial(create_timm, model, arguments))
        check_nothing_is_drawn(
            asked.request.options,
            default.state_dict(),
            wanted.state_dict(),
            asked.spelling,
            resized=_ADAPTED,
            head=("head",) if getattr(wanted, "num_classes", 0) == 0 else (),
        )
    return Filled(module=_fetch_pretrained(model, arguments), size=size, notes=())


def _default(model: TimmModel) -> nn.Module:
    what = f"config.json of {model.name} describes a model that cannot be built by timm {timm.__version__}"
    with library_failures(ModelUnavailableError, what, "save it again with timm.models.save_for_hf"):
        return build_on_meta(partial(create_timm, model, model.arguments))


def _arguments(
    asked: ResolvedRequest, model: TimmModel, default: nn.Module
) -> tuple[ImageSize, dict[str, Any]]:
    options = asked.options
    own, said = default_size(model, default), said_size(options)
    if None not in (said, asked.image_size) and said != asked.image_size:
        raise UsageError(
            f"--image-size {size_text(asked.image_size or own)} contradicts --model-option "
            f"img_size={size_text(said or own)}: leave one out"
        )
    size = asked.image_size or said or own
    arguments = dict(model.arguments) | options
    if size != own:
        if "patch_size" not in options:
            check_patches(asked, default, size)
        arguments["img_size"] = size
        if "img_size" not in constructor_options(type(default)):
            raise UsageError(f"{asked.spelling} has one fixed input size: leave --image-size out")
    if options:
        building_with(partial(build_on_meta, partial(create_timm, model, arguments)), options, asked.spelling)
    return size, arguments


def _fetch_pretrained(model: TimmModel, arguments: dict[str, Any]) -> nn.Module:
    with fetching(f"the weights of timm:{model.full_name}"):
        return freeze(create_timm(model, arguments, pretrained=True))


def _channels(module: Any) -> int:
    if (first := first_convolution(module)) is not None:
        return first.in_channels
    channels: int = module.pretrained_cfg.get("input_size", (3,))[0]
    return int(getattr(module, "in_chans", channels))


def _output_name(module: nn.Module, model: TimmModel) -> OutputName:
    """CLIP and SigLIP towers embed unless fine-tuned into classifiers; headless models give features."""
    classes = getattr(module, "num_classes", 0)
    is_tower = ("clip" in model.architecture or "siglip" in model.architecture) and "ft_" not in model.tag
    if is_tower and classes == _registered_classes(model):
        return "embedding"
    return "logits" if classes else "features"


def _registered_classes(model: TimmModel) -> int | None:
    config = timm.get_pretrained_cfg(model.full_name, allow_unregistered=True)
    config = config or timm.get_pretrained_cfg(model.architecture)
    return None if config is None else config.num_classes


def _class_names(
    asked: ResolvedRequest, model: TimmModel, classes: int
) -> tuple[ClassNames | None, tuple[str, ...]]:
    """Names where the weights are the library's, or the folder lists them; never by the count alone."""
    if not classes or asked.weights_kind == "random":
        return None, ()
    config = model.config
    if config is None and asked.weights_kind == "pretrained":
        config = timm.get_pretrained_cfg(model.full_name).to_dict()  # type: ignore[union-attr]
        if config["num_classes"] == classes:
            return listed_names(config, classes) or imagenet_names(classes), ()
        return None, ()
    if config is not None and (names := listed_names(config, classes)) is not None:
        return names, ()
    if imagenet_names(classes) is not None:
        return None, (unnamed_note(classes),)
    return None, ()


def _preprocess_of(
    asked: ResolvedRequest, model: TimmModel, module: Any, channels: int, size: ImageSize
) -> tuple[Preprocess | None, tuple[str, ...]]:
    if (order := channel_order(channels)) is None:
        return None, (f"no photo has {channels} channels: the model has no preprocessing",)
    if asked.preprocess is not None:
        return asked.preprocess, ()
    preprocess = _preprocess(module, size, order)
    means = len(module.pretrained_cfg["mean"])
    is_guess = asked.weights_kind == "file" and model.config is None
    notes = (
        (f"{GUESSED}: that of {model.full_name}; give --preprocess FILE.json to say it",) if is_guess else ()
    )
    if means == channels:
        return preprocess, notes
    return preprocess, (
        *notes,
        f"mean and std are the average of those of {means} channels, as in timm's "
        "loader: the model has another number of channels",
    )


def _preprocess(module: Any, size: ImageSize, order: ChannelOrder) -> Preprocess:
    """As timm's evaluation transform; its loader converts to RGB before.

    For another number of channels than the configuration has, timm's loader takes the average of its means.
    """
    data: dict[str, Any] = resolve_data_config(  # type: ignore[no-untyped-call]
        {}, pretrained_cfg=module.pretrained_cfg
    )
    if data["crop_mode"] not in _RESIZE_MODES:
        raise ModelUnavailableError(
            f'crop mode "{quoted(data["crop_mode"])}" is not supported: expected {", ".join(_RESIZE_MODES)}; {SAY_IT}'
        )
    channels = CHANNELS[order]
    mean, std = (_per_channel(data[key], channels) for key in ("mean", "std"))
    is_padded = data["crop_mode"] == "border"
    return Preprocess(
        image_size=size,
        interpolation=data["interpolation"],
        crop_fraction=data["crop_pct"],
        mean=mean,
        std=std,
        resize_mode=_RESIZE_MODES[data["crop_mode"]],
        channel_order=order,
        fill=tuple(round(255 * value) for value in mean) if is_padded else (0,) * channels,
    )


def _per_channel(values: Any, channels: int) -> Any:
    if not isinstance(values, list | tuple):
        return values  # which `Preprocess` refuses
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
