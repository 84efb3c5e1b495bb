"""Infer the free parameters of a timm architecture from a state dict: head, pooling, tokens, norms, positions.

In: the weights and the architecture as in the registry; out: the arguments to build it
with. The same reading of both gives the differences. What names and shapes cannot tell (heads of attention, token or
average where both have the same norms) stays as in the registry.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import VisionTransformer
from torch import nn

from exporter.errors import WeightsError
from exporter.models.request import ImageSize, OptionValue

State = Mapping[str, torch.Tensor]

# Constructor's argument, the name in a state dict that shows it, and its values with and without.
_PRESENCE: tuple[tuple[str, str, OptionValue, OptionValue], ...] = (
    ("class_token", "cls_token", True, False),
    ("qkv_bias", "blocks.0.attn.qkv.bias", True, False),
    ("proj_bias", "blocks.0.attn.proj.bias", True, False),
    ("qk_norm", "blocks.0.attn.q_norm.weight", True, False),
    ("scale_attn_norm", "blocks.0.attn.norm.weight", True, False),
    ("scale_mlp_norm", "blocks.0.mlp.norm.weight", True, False),
    ("init_values", "blocks.0.ls1.gamma", 1e-5, 0.0),
    ("pre_norm", "norm_pre.weight", True, False),
)

AVERAGES = ("avg", "avgmax", "max")
_POOLED_BY_ATTENTION = ("map", "prr")

# Width and blocks of the sizes in timm's names.
_SIZES = {
    (192, 12): "tiny",
    (384, 12): "small",
    (512, 12): "medium",
    (640, 12): "betwixt",
    (768, 12): "base",
    (1024, 24): "large",
    (1280, 32): "huge",
    (1408, 40): "giant",
    (1664, 48): "gigantic",
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the weights tell.

    Attributes:
        arguments: Everything that they tell, by the constructor's names.
        changed: The part of it that is not as in the registry.
        default_pool: The registry's pooling, where the weights fit it but do not tell it apart from others.
    """

    arguments: dict[str, Any]
    changed: dict[str, Any]
    default_pool: str | None = None


def told_by(
    state: State, default: nn.Module, takes: Mapping[str, Any], options: Mapping[str, OptionValue]
) -> Told:
    """Read an architecture's free parameters from a state dict.

    Args:
        state: The weights, by the model's own names.
        default: The model as in the registry.
        takes: Arguments of its constructor.
        options: What the user says; decides what the weights leave open.

    Returns:
        Nothing told, if the weights are of another kind of model.
    """
    own = default.state_dict()
    if not state or sum(name in own for name in state) * 2 < len(state):
        return Told(arguments={}, changed={})
    told, before = _read(state, default, takes), _read(own, default, takes)
    default_pool = None
    if isinstance(default, VisionTransformer) and "dist_token" not in own:
        pooling, default_pool = _pooling(state, default, options)
        told |= pooling
        before |= _norms(own) | {"global_pool": default.global_pool}
    changed = {name: value for name, value in told.items() if before.get(name, value) != value}
    if "fc_norm" in told and ("global_pool" in changed or "global_pool" in options):
        changed["fc_norm"] = told["fc_norm"]  # where the norm is follows from the pooling, unless it is said
    return Told(arguments=told, changed=changed, default_pool=default_pool)


def worth_saying(changed: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a note lists: without a norm that follows from the pooling."""
    follows = changed.get("fc_norm") == (changed.get("global_pool") in AVERAGES)
    said = {name: value for name, value in changed.items() if not (name == "fc_norm" and follows)}
    if "init_values" in said:
        said["LayerScale"] = bool(said.pop("init_values"))
    return said


def _read(state: State, default: nn.Module, takes: Mapping[str, Any]) -> dict[str, Any]:
    """What names and shapes tell without further thought."""
    told: dict[str, Any] = {}
    classifier = _classifier(default)
    if classifier is not None:
        head = state.get(f"{classifier}.weight")
        if head is None or head.dim():
            told["num_classes"] = 0 if head is None else head.shape[0]
    patches = state.get("patch_embed.proj.weight")
    is_plain = patches is not None and patches.dim() == 4 and _takes_images(default)
    if patches is not None and is_plain:
        told["in_chans"] = patches.shape[1]
    if not isinstance(default, VisionTransformer):
        return told
    if patches is not None and is_plain:
        told |= {"embed_dim": patches.shape[0], "patch_size": tuple(patches.shape[2:])}
    told["depth"] = _depth(state)
    told |= {
        name: there if key in state else absent
        for name, key, there, absent in _PRESENCE
        if name in takes and not (name == "class_token" and "dist_token" in state)
    }
    registers = state.get("reg_token")
    told["reg_tokens"] = registers.shape[1] if registers is not None and registers.dim() == 3 else 0
    return told


def first_convolution(module: nn.Module) -> nn.Conv2d | None:
    """What takes the image in a model with `patch_embed`: its projection, or the first layer of a stem before it."""
    embedding = getattr(module, "patch_embed", None)
    if not isinstance(embedding, nn.Module):
        return None
    return next((layer for layer in embedding.modules() if isinstance(layer, nn.Conv2d)), None)


def _takes_images(module: nn.Module) -> bool:
    """Whether the projection of the patches is what takes the image."""
    first = first_convolution(module)
    return first is not None and first is getattr(module.patch_embed, "proj", None)


def _classifier(module: nn.Module) -> str | None:
    config: dict[str, Any] = getattr(module, "pretrained_cfg", {})
    name = config.get("classifier")
    return name[0] if isinstance(name, list | tuple) else name


def _depth(state: State) -> int:
    numbers = (re.match(r"blocks\.(\d{1,6})\.", name) for name in state)
    return 1 + max((int(number[1]) for number in numbers if number), default=-1)


def _norms(state: State) -> dict[str, Any]:
    has_fc = "fc_norm.weight" in state
    return {"fc_norm": has_fc, "final_norm": has_fc or "norm.weight" in state}


def _pooling(
    state: State, default: VisionTransformer, options: Mapping[str, OptionValue]
) -> tuple[dict[str, Any], str | None]:
    """The pooling that goes with the norms and tokens of a state dict, and whether it is only the registry's."""
    norms, has_class_token = _norms(state), "cls_token" in state
    if any(name.startswith("attn_pool.") for name in state):
        pool = "map" if "attn_pool.latent" in state else "prr"
        return norms | {"global_pool": pool}, None
    if (said := options.get("global_pool")) is not None:
        fits = said not in _POOLED_BY_ATTENTION and (has_class_token or said != "token")
        fallback = "token" if has_class_token else "avg"
        return norms | {"global_pool": said if fits else fallback}, None
    pool, own = default.global_pool, _norms(default.state_dict())
    if pool in _POOLED_BY_ATTENTION or (pool == "token" and not has_class_token):
        return norms | {"global_pool": "token" if has_class_token and not norms["fc_norm"] else "avg"}, None
    if norms["fc_norm"] and not own["fc_norm"] and pool not in AVERAGES:
        return norms | {"global_pool": "avg"}, None
    if own["fc_norm"] and not norms["fc_norm"] and norms["final_norm"] and has_class_token:
        return norms | {"global_pool": "token"}, None
    return norms | {"global_pool": pool}, pool


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of positions.

    Attributes:
        size: The image size that its weights were trained at.
        no_embed_class: Whether prefix tokens have no rows in it.
        is_guess: Whether another grid with as many positions was asked for.
    """

    size: ImageSize
    no_embed_class: bool
    is_guess: bool = False


def table_of(
    rows: int, module: Any, prefix_tokens: int, said: ImageSize | None, asked: ImageSize | None
) -> Table | None:
    """Tell the image size from the number of rows of a table of positions.

    Args:
        rows: Rows of the table in the weights.
        module: The model, with `patch_embed`.
        prefix_tokens: Class and register tokens of the weights.
        said: The size of the weights, if the user says it.
        asked: The size that the model should have.

    Returns:
        None if no grid has this number of rows. A grid is what the user says; otherwise the model's own, a square, or
        what was asked for, in this order; with rows for prefix tokens as in the model, or else the other way.
    """
    patch_height, patch_width = module.patch_embed.feat_ratio(as_scalar=False)
    own: bool = getattr(module, "no_embed_class", False)
    counts = {flag: rows - (0 if flag else prefix_tokens) for flag in (own, not own)}
    asked_grid = None if asked is None else (asked[0] // patch_height, asked[1] // patch_width)
    choices: list[Any] = [module.patch_embed.grid_size, "square", asked_grid]
    if said is not None:
        choices = [(said[0] // patch_height, said[1] // patch_width)]
    for choice in choices:
        for flag, count in counts.items():
            side = math.isqrt(max(count, 0))
            grid = (side, side) if choice == "square" else choice
            if grid is not None and grid[0] * grid[1] == count > 0:
                is_guess = asked_grid not in (None, grid) and math.prod(asked_grid or ()) == count
                return Table(
                    size=(grid[0] * patch_height, grid[1] * patch_width),
                    no_embed_class=flag,
                    is_guess=is_guess and said is None,
                )
    return None


def check_geometry(
    told: Mapping[str, Any], default: nn.Module, architecture: str, given: Mapping[str, Any], where: str
) -> None:
    """Refuse weights of another width, depth or patch than the name says.

    Args:
        told: What the weights tell.
        default: The model as in the registry.
        architecture: Its name there.
        given: Arguments that the user says himself.
        where: The weights, for messages.

    Raises:
        WeightsError: The message has both, and the name of timm's that fits, if there is one.
    """
    if not isinstance(default, VisionTransformer) or "embed_dim" not in told:
        return
    names = {"embed_dim": "width", "depth": "blocks", "patch_size": "patch"}  # as people say it
    own: dict[str, Any] = {
        "embed_dim": default.embed_dim,
        "depth": len(default.blocks),
        "patch_size": tuple(default.patch_embed.patch_size),
    }
    wrong = [name for name in names if told[name] != own[name] and name not in given]
    if not wrong:
        return
    differences = ", ".join(
        f"{names[name]} expected {_side(own[name])}, got {_side(told[name])}" for name in wrong
    )
    raise WeightsError(
        f'weights in "{where}" are not of {architecture}: {differences}'
        f"{_named(architecture, told) or '; name the architecture that they were trained with'}"
    )


def _side(value: Any) -> str:
    return str(value if not isinstance(value, tuple) else value[0] if value[0] == value[1] else value)


def _named(architecture: str, told: Mapping[str, Any]) -> str:
    """The architecture of the same family that has this width, depth and patch, as a suggestion."""
    size = _SIZES.get((told["embed_dim"], told["depth"]))
    own = next((word for word in _SIZES.values() if f"_{word}_" in architecture), None)
    if size is None or own is None:
        return ""
    name = architecture.replace(f"_{own}_", f"_{size}_")
    name = re.sub(r"_patch\d+", f"_patch{told['patch_size'][0]}", name)
    return f'. Did you mean "timm:{name}"?' if name != architecture and timm.is_model(name) else ""
