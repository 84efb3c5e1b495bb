"""The halves of a model that compares images and texts by heads of its own, and has no method for one of them.

BLIP's and ALBEF's way: a linear layer reads the class token of either side, and the results have unit length. In: the
class of a checkpoint; out: a class of the same name and weights that takes images, or texts, only.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from exporter.models.hf.inside import parts_of
from exporter.models.hf.tower import Side

_HEADS: dict[Side, str] = {"image": "vision_proj", "text": "text_proj"}


@dataclass(frozen=True)
class Embedded:
    """What a half returns: the joint embedding (B, K), of unit length, and the tokens (B, T, C) below it."""

    pooler_output: torch.Tensor
    last_hidden_state: torch.Tensor


def half_of(whole: Any, side: Side) -> Any:
    """The class of one half; None where the model has no such heads.

    Args:
        whole: The model of a checkpoint, on the meta device.
        side: Which half.
    """
    if not all(isinstance(getattr(whole, head, None), nn.Linear) for head in _HEADS.values()):
        return None
    part = whole.config.vision_config if side == "image" else whole.config.text_config
    towers = [name for name, child in whole.named_children() if getattr(child, "config", None) is part]
    return _half(type(whole), towers[0], _HEADS[side]) if len(towers) == 1 else None


def _half(whole_class: Any, tower: str, head: str) -> Any:
    def forward(self: Any, inputs: torch.Tensor, **arguments: Any) -> Embedded:
        tokens = getattr(self, tower)(inputs, **arguments).last_hidden_state
        return Embedded(functional.normalize(getattr(self, head)(tokens[:, 0]), dim=-1), tokens)

    return parts_of(whole_class, (tower, head), forward)
