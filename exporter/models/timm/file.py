"""Build a model of timm around a file of weights: free parameters are taken from the file, and noted.

In: a `TimmModel` and the path of weights; out: the module that they fill exactly, at the
image size that was asked for. `source` calls it for `--weights FILE` and for saved folders.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from exporter.errors import UsageError, WeightsError
from exporter.models.checkpoint.read import Checkpoint, read_checkpoint
from exporter.models.model_options import building_with, listed, refuse_contradictions
from exporter.models.request import (
    ImageSize,
    OptionValue,
    ResolvedRequest,
    as_pair,
    check_multiple,
    size_text,
)
from exporter.models.timm.model import TimmModel
from exporter.models.timm.parameters import Table, Told, check_geometry, table_of, told_by, worth_saying
from exporter.models.weights import build_on_meta, fill, freeze


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A module with the weights of a file.

    Attributes:
        module: At the image size that was asked for.
        size: That size; the weights' own if none was asked for.
        notes: What was taken from the weights, what they leave open, what was resampled.
    """

    module: nn.Module
    size: ImageSize
    notes: tuple[str, ...]


def build_timm_from_file(
    asked: ResolvedRequest, model: TimmModel, default: nn.Module, takes: Mapping[str, Any], path: Path
) -> Filled:
    """Build a model of timm with the weights of a file.

    Args:
        asked: The options and the image size.
        model: Which architecture.
        default: It, as in the registry or the folder, without values.
        takes: Arguments of its constructor.
        path: The weights.

    Raises:
        UsageError: An option contradicts the weights, or the image size is not a multiple of the patch.
        WeightsError: The weights are of another architecture, or cannot be read.
    """
    checkpoint = read_checkpoint(path).fitted_to(default.state_dict())
    options = asked.options
    told = told_by(checkpoint.state, default, takes, options)
    refuse_contradictions(options, told.arguments, f'the weights in "{path}"')
    check_geometry(told.arguments, default, model.architecture, options, str(path))
    table = _table(asked, checkpoint, default, told) if told.arguments else None
    changed = dict(told.changed)
    has_flag = "no_embed_class" in takes  # elsewhere the class token may come after the positions
    if table is not None and has_flag and table.no_embed_class != getattr(default, "no_embed_class", False):
        refuse_contradictions(options, {"no_embed_class": table.no_embed_class}, f'the weights in "{path}"')
        changed["no_embed_class"] = table.no_embed_class
    if table is None and told.arguments and "pos_embed" in takes and _rows(default.state_dict()) is not None:
        changed["pos_embed"] = "none"
    arguments = dict(model.arguments) | changed | options
    own = table.size if table else asked.image_size or default_size(model, default)
    if own != default_size(model, default) or "img_size" in arguments:
        arguments["img_size"] = own
    build = partial(create_timm, model, arguments)
    building_with(partial(build_on_meta, build), changed | options, asked.spelling)
    module = fill(build, checkpoint.state, path)
    size = asked.image_size or own
    notes = (*checkpoint.notes, *_notes(asked, model, told, changed, table, default_size(model, default)))
    if size != own:
        module = _resampled(asked, model, arguments, checkpoint, own)
        notes += (
            f"the table of positions was resampled from {size_text(own)} to {size_text(size)} pixels, "
            "as timm does for its own weights",
        )
    return Filled(module=module, size=size, notes=notes)


def create_timm(model: TimmModel, arguments: Mapping[str, Any], **more: Any) -> nn.Module:
    """Build a model with timm's own function."""
    if model.config is None:
        module: nn.Module = timm.create_model(model.full_name, **arguments, **more)
        return module
    saved: nn.Module = timm.create_model(
        model.architecture, pretrained_cfg=dict(model.config), **arguments, **more
    )
    return saved


def default_size(model: TimmModel, default: nn.Module) -> ImageSize:
    """The image size that a model has unless it is told another."""
    if (said := model.arguments.get("img_size")) is not None:
        return as_pair(said)
    config: Any = default.pretrained_cfg
    _, height, width = config["input_size"]
    return int(height), int(width)


def said_size(options: Mapping[str, OptionValue]) -> ImageSize | None:
    """The image size among the options."""
    said = options.get("img_size")
    return as_pair(said) if isinstance(said, int | tuple) else None


def check_patches(asked: ResolvedRequest, module: Any, size: ImageSize) -> None:
    """Refuse a size that the model's patches do not tile, or a model that has no patches of a fixed size.

    Raises:
        UsageError: Either is so.
    """
    patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    if patch is None:
        raise UsageError(f"{asked.spelling} has no patch embedding to resize: leave --image-size out")
    check_multiple(size, patch, asked.spelling)


def _rows(state: Mapping[str, torch.Tensor]) -> int | None:
    table = state.get("pos_embed")
    return table.shape[1] if table is not None and table.dim() == 3 else None


def _table(asked: ResolvedRequest, checkpoint: Checkpoint, default: Any, told: Told) -> Table | None:
    rows = _rows(checkpoint.state)
    embedding = getattr(default, "patch_embed", None)
    if rows is None or not (hasattr(embedding, "grid_size") and hasattr(embedding, "feat_ratio")):
        return None
    if "class_token" in told.arguments or "reg_tokens" in told.arguments:
        prefix_tokens = (
            int(told.arguments.get("class_token", True))
            + int(told.arguments.get("reg_tokens", 0))
            + int("dist_token" in checkpoint.state)
        )
    else:
        prefix_tokens = default.num_prefix_tokens
    said = said_size(asked.request.options)
    table = table_of(rows, default, prefix_tokens, said, asked.image_size)
    if table is None and said is not None:
        raise UsageError(
            f"--model-option img_size={size_text(said)} contradicts the weights in "
            f'"{checkpoint.path}": their table of positions has {rows} rows, {prefix_tokens} of them for other tokens'
        )
    if table is None:
        raise WeightsError(
            f'weights in "{checkpoint.path}" have a table of positions with {rows} rows, which is no square of '
            f"patches and {prefix_tokens} other tokens: say the image size that they were trained at with "
            "--model-option img_size=HEIGHT,WIDTH"
        )
    return table


def _notes(
    asked: ResolvedRequest,
    model: TimmModel,
    told: Told,
    changed: Mapping[str, Any],
    table: Table | None,
    usual: ImageSize,
) -> tuple[str, ...]:
    own = table.size if table is not None else usual
    notes: list[str] = []
    inferred = {
        name: value for name, value in worth_saying(changed).items() if name not in asked.request.options
    }
    if inferred:
        notes.append(f"{listed(inferred)} taken from the weights; {model.architecture} has it otherwise")
    is_users = asked.weights_kind == "file"
    if told.default_pool and (inferred or is_users):
        notes.append(
            f"global_pool={told.default_pool} is the default of {model.architecture}: the weights fit it, and do not "
            "tell it apart from others; --model-option global_pool=NAME says it"
        )
    twin = _twin(model.architecture)
    if twin and is_users and model.config is None and "act_layer" not in asked.request.options:
        notes.append(
            f"activation assumed to be that of {model.architecture}: the weights do not tell it; "
            f"the twin {twin} has QuickGELU"
        )
    if table is not None and asked.image_size is None and own != usual:
        notes.append(f"image size {size_text(own)} taken from the weights' table of positions")
    if table is not None and table.is_guess:
        notes.append(
            f"the table of positions was read as that of images of {size_text(table.size)} pixels; "
            "--model-option img_size=HEIGHT,WIDTH says otherwise"
        )
    return tuple(notes)


def _twin(architecture: str) -> str | None:
    """The same tower of CLIP with QuickGELU, if timm has both."""
    name = architecture.replace("_clip_", "_clip_quickgelu_")
    return name if name != architecture and timm.is_model(name) else None


def _resampled(
    asked: ResolvedRequest,
    model: TimmModel,
    arguments: Mapping[str, Any],
    checkpoint: Checkpoint,
    own: ImageSize,
) -> nn.Module:
    """The same weights at another image size, by the loader that timm uses for its own."""
    assert asked.image_size is not None
    with torch.device("meta"):
        small: Any = create_timm(model, arguments)
    check_patches(asked, small, asked.image_size)
    overlay = {
        "state_dict": dict(checkpoint.state),
        "source": None,
        "label_offset": 0,
        "num_classes": small.num_classes,
        "input_size": (arguments.get("in_chans", small.pretrained_cfg["input_size"][0]), *own),
    }
    module: Any = create_timm(
        model,
        dict(arguments) | {"img_size": asked.image_size},
        pretrained=True,
        pretrained_cfg_overlay=overlay,
    )
    module.pretrained_cfg.pop("state_dict", None)
    return freeze(module)
