"""Build a classifier of torchvision around a file of weights: free parameters are taken from the file, and noted.

In: a name of torchvision and the path of weights; out: the module that they fill exactly,
at the image size that was asked for. `source` calls it for `--weights FILE`.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn
from torchvision.models import VisionTransformer, get_model
from torchvision.models.vision_transformer import interpolate_embeddings

from exporter.errors import WeightsError
from exporter.models.checkpoint.read import Checkpoint, read_checkpoint
from exporter.models.model_options import building_with, constructor_options, listed, refuse_contradictions
from exporter.models.request import ResolvedRequest, check_multiple, square_side
from exporter.models.weights import build_on_meta, fill

# Of a ViT's constructor, but said by its name.
_NAMED = ("patch_size", "num_layers", "num_heads", "hidden_dim", "mlp_dim")

# Width, blocks and letter of the sizes in torchvision's names.
_SIZES = {(768, 12): "b", (1024, 24): "l", (1280, 32): "h"}

_TABLE = "encoder.pos_embedding"


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A module, the side of its images, the number of its logits (0: features), and notes on what was taken."""

    module: nn.Module
    size: int
    classes: int
    notes: tuple[str, ...]


def create_torchvision(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a classifier with torchvision's own function; `num_classes=0` leaves its last layer out."""
    if arguments.get("num_classes") != 0:
        module: nn.Module = get_model(name, weights=None, **arguments)
        return module
    kept = {key: value for key, value in arguments.items() if key != "num_classes"}
    headless: nn.Module = get_model(name, weights=None, **kept)
    headless.set_submodule(classifier_of(headless), nn.Identity())
    return headless


def classifier_of(module: nn.Module) -> str:
    """The name of the last linear layer, which gives the logits."""
    names: list[str] = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    return names[-1]


def logits_of(module: nn.Module, arguments: Mapping[str, Any]) -> int:
    """How many logits a module gives that was built with these arguments; 0 without its last layer."""
    if arguments.get("num_classes") == 0:
        return 0
    logits: int = module.get_parameter(f"{classifier_of(module)}.weight").shape[0]
    return logits


def torchvision_options(default: nn.Module) -> dict[str, Any]:
    """What can be said about a classifier beside its name."""
    options = constructor_options(type(default))
    if isinstance(default, VisionTransformer):
        options = {name: value for name, value in options.items() if name not in _NAMED}
        options["image_size"] = default.image_size
    return options


def build_torchvision_from_file(
    asked: ResolvedRequest, name: str, default: nn.Module, own_size: int
) -> Filled:
    """Build a classifier of torchvision with the weights of a file.

    Args:
        asked: The file, the options and the image size.
        name: Of the classifier.
        default: It, without values.
        own_size: The side of the images that the library's own weights take.

    Raises:
        UsageError: An option contradicts the weights, or the image size is not a multiple of the patch.
        WeightsError: The weights are of another architecture, or cannot be read.
    """
    where = f'the weights in "{asked.weights_path}"'
    checkpoint = _with_heads_named(
        read_checkpoint(asked.weights_path).fitted_to(default.state_dict()), default
    )
    options = asked.options
    told = _told_by(checkpoint, default)
    refuse_contradictions(options, told, where)
    _check_geometry(checkpoint, default, name)
    before = {"num_classes": logits_of(default, {}), "representation_size": None, "image_size": own_size}
    changed = {key: value for key, value in told.items() if before[key] != value}
    arguments: dict[str, Any] = {key: told[key] for key in ("image_size",) if key in told}
    arguments |= changed | options
    build = partial(create_torchvision, name, arguments)
    building_with(partial(build_on_meta, build), changed | options, asked.spelling)
    module = fill(build, checkpoint.state, checkpoint.path)
    notes = checkpoint.notes
    if inferred := {key: value for key, value in changed.items() if key not in options}:
        notes += (f"{listed(inferred)} taken from the weights; {name} has it otherwise",)
    trained_at = int(told.get("image_size", own_size))
    size = square_side(asked) or trained_at
    if size != trained_at:
        module = _resampled(asked, name, arguments, checkpoint, size)
        notes += (
            f"the table of positions was resampled from {trained_at} to {size} pixels, "
            "as torchvision's interpolate_embeddings does",
        )
    return Filled(module=module, size=size, classes=logits_of(module, arguments), notes=notes)


def _with_heads_named(checkpoint: Checkpoint, default: nn.Module) -> Checkpoint:
    """The head of a ViT whose `heads` was replaced by one linear layer, under the name that it has by itself."""
    names = {"heads.weight": "heads.head.weight", "heads.bias": "heads.head.bias"}
    if not isinstance(default, VisionTransformer) or not names.keys() <= checkpoint.state.keys():
        return checkpoint
    state = {names.get(name, name): tensor for name, tensor in checkpoint.state.items()}
    if len(state) != len(checkpoint.state):
        return checkpoint
    note = "heads.weight and heads.bias were read as those of heads.head"
    return replace(checkpoint, state=state, notes=(*checkpoint.notes, note))


def _told_by(checkpoint: Checkpoint, default: nn.Module) -> dict[str, Any]:
    state, own = checkpoint.state, default.state_dict()
    if not state or sum(name in own for name in state) * 2 < len(state):
        return {}
    head = state.get(f"{classifier_of(default)}.weight")
    told: dict[str, Any] = {"num_classes": 0} if head is None else {}
    if head is not None and head.dim():
        told["num_classes"] = head.shape[0]
    if not isinstance(default, VisionTransformer):
        return told
    before_logits = state.get("heads.pre_logits.weight")
    told["representation_size"] = None
    if before_logits is not None and before_logits.dim() == 2:
        told["representation_size"] = before_logits.shape[0]
    table = state.get(_TABLE)
    if table is not None and table.dim() == 3:
        side = math.isqrt(table.shape[1] - 1)
        if side * side != table.shape[1] - 1 or not side:
            raise WeightsError(
                f'weights in "{checkpoint.path}" have a table of positions with {table.shape[1]} rows, which is no '
                "square of patches and a class token: torchvision takes square images only"
            )
        told["image_size"] = side * default.patch_size
    return told


def _check_geometry(checkpoint: Checkpoint, default: nn.Module, name: str) -> None:
    patches = checkpoint.state.get("conv_proj.weight")
    if not isinstance(default, VisionTransformer) or patches is None or patches.dim() != 4:
        return
    numbers = (re.match(r"encoder\.layers\.encoder_layer_(\d{1,6})\.", key) for key in checkpoint.state)
    depth = 1 + max((int(number[1]) for number in numbers if number), default=-1)
    got = {"width": patches.shape[0], "blocks": depth, "patch": patches.shape[2]}
    expected = {
        "width": default.hidden_dim,
        "blocks": len(default.encoder.layers),
        "patch": default.patch_size,
    }
    wrong = [f"{key} expected {expected[key]}, got {got[key]}" for key in got if expected[key] != got[key]]
    if wrong:
        letter = _SIZES.get((got["width"], got["blocks"]))
        fitting = f"vit_{letter}_{got['patch']}"
        hint = f'. Did you mean "torchvision:{fitting}"?' if letter and _is_name(fitting) else ""
        raise WeightsError(f'weights in "{checkpoint.path}" are not of {name}: {", ".join(wrong)}{hint}')


def _is_name(name: str) -> bool:
    from torchvision.models import list_models

    return name in list_models()


def _resampled(
    asked: ResolvedRequest, name: str, arguments: Mapping[str, Any], checkpoint: Checkpoint, size: int
) -> nn.Module:
    build = partial(create_torchvision, name, dict(arguments) | {"image_size": size})
    patch: Any = build_on_meta(build).patch_size
    check_multiple(size, patch, asked.spelling)
    state = interpolate_embeddings(size, patch, OrderedDict(checkpoint.state))
    return fill(build, state, checkpoint.path)
