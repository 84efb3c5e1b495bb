"""A model whose output is its own normalised tokens, in place of what its head makes of them.

In: a loaded model with its head. Out: the same model and weights, whose output `tokens` is (B, T, C), class and
register tokens included. Models of transformers are asked for them in their own source (`hf.rules`).
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from exporter.errors import UsageError
from exporter.models.loaded import LoadedModel
from exporter.models.request import ResolvedRequest

_OWN_OUTPUTS = ("pt2",)
"""Sources whose models are taken with the outputs that they have."""

_DENSE = ("tokens", "maps")


class TimmTokens(nn.Module):
    """What `forward_features` of a timm model returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) to tokens (B, T, C)."""
        tokens: torch.Tensor = self.model.forward_features(images)
        return tokens


class TorchvisionTokens(TimmTokens):
    """What torchvision's encoder returns, of which its ViT keeps the class token only."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) to tokens (B, T, C)."""
        patches = self.model._process_input(images)
        first = self.model.class_token.expand(patches.shape[0], -1, -1)
        tokens: torch.Tensor = self.model.encoder(torch.cat((first, patches), dim=1))
        return tokens


def with_dense_outputs(loaded: LoadedModel, asked: ResolvedRequest) -> LoadedModel:
    """The model as it is, or where dense or reduced outputs are asked for, with its tokens as output.

    Raises:
        UsageError: they are asked of a model that does not give its tokens.
    """
    if asked.request.outputs == "own" or asked.source in _OWN_OUTPUTS or loaded.output_names[0] in _DENSE:
        return loaded
    own: Any = loaded.module
    if hasattr(own, "forward_features"):
        module: nn.Module = TimmTokens(own)
    elif hasattr(own, "class_token") and hasattr(own, "encoder"):
        module = TorchvisionTokens(own)
    else:
        raise UsageError(
            f"--outputs {asked.request.outputs}: {asked.spelling} does not give its tokens: expected a ViT of timm, "
            "torchvision or transformers, or a saved program (.pt2) with the outputs that are wanted"
        )
    return replace(loaded, module=module.eval(), output_names=("tokens",), class_names=None)
