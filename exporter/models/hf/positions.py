"""Positions for another image size than the checkpoint's: tables resampled once, when the model is loaded.

It happens before capture, so that no graph resamples anything.
"""

import math
from collections.abc import Mapping

import torch
from torch import nn

from exporter.models.hf.module import INTERPOLATES, Unwrapped, recording_resampling
from exporter.models.request import ImageSize

POSITION_TABLES = ("position_embeddings", "position_embedding.weight", "position_embedding")


class KeptPositions(nn.Module):
    """Stands in for the method of transformers' embeddings that resamples positions in every call."""

    def __init__(self, table_1NC: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table_1NC, requires_grad=False)

    def forward(self, *_arguments: object) -> torch.Tensor:
        """Give the table (1, N, C) that the method gave once."""
        return self.table


def resample_positions(
    state: Mapping[str, torch.Tensor], own: ImageSize, grid: ImageSize
) -> dict[str, torch.Tensor]:
    """Resample the positional table to another grid of patches, bicubically; prefix tokens keep theirs.

    Args:
        state: A state dict; its table is (..., prefix + rows * columns, C).
        own: Rows and columns of patches in the table.
        grid: Rows and columns wanted.
    """
    resampled = dict(state)
    for name, table in state.items():
        if name.endswith(POSITION_TABLES):
            rows = table.reshape(-1, table.shape[-1])
            prefix, patches = rows.tensor_split([rows.shape[0] - math.prod(own)])
            planes = patches.T.reshape(1, -1, *own)
            larger = nn.functional.interpolate(planes, size=grid, mode="bicubic", align_corners=False)
            patches = larger.reshape(table.shape[-1], -1).T
            resampled[name] = torch.cat([prefix, patches]).reshape(*table.shape[:-2], -1, table.shape[-1])
    return resampled


@torch.no_grad()
def keep_resampled_positions(model: Unwrapped, channels: int, size: ImageSize) -> None:
    """Resample by the model's own method, once, and let that method give the result from then on.

    This is for classes whose configuration has no place for a size that is not square.

    Args:
        model: Called with the argument that asks for resampled positions.
        channels: Of an image.
        size: Height and width wanted.

    Raises:
        LookupError: No part of the model resamples positions when it is called.
    """
    with recording_resampling(model) as kept:
        model(torch.zeros(1, channels, *size))
    if not kept:
        raise LookupError(f"no part of it calls {INTERPOLATES}")
    for owner, table in kept.items():
        owner.kept_positions = KeptPositions(table)
        owner.__dict__[INTERPOLATES] = owner.kept_positions
