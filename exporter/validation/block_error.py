"""Error growth: how far the merged tokens have drifted from the dense model's, block by block.

In: token states after a block, dense and merged, and which merged token each original one is part of. Out: one number
per block. Every original token is compared with the merged token that stands for it, so the number counts what merging
lost and what the lost detail did to the tokens since.

Shapes: B images, T tokens that enter block 0, K tokens after the block's merge, C channels, R merged.
"""

import math

import torch
from torch import Tensor

from exporter.errors import ParityError
from exporter.reduction.merge import take


def initial_groups(batch: int, tokens: int) -> Tensor:
    """Before block 0 every token stands for itself: int64 (batch, tokens)."""
    return torch.arange(tokens).repeat(batch, 1)


def relative_error(dense_BTC: Tensor, reduced_BKC: Tensor, groups_BT: Tensor) -> float:
    """|| dense - reduced[groups] || / || dense ||, Frobenius norms in fp64, mean over images.

    0 is no difference; 1 is as far away as zeros would be.

    Args:
        dense_BTC: token states of the dense model.
        reduced_BKC: token states of the merged one, after the same block.
        groups_BT: int64, which of the K tokens each of the T is part of.

    Raises:
        ParityError: the error is not a finite number, because a state is not, or the dense states are all zero.
    """
    dense = dense_BTC.double()
    spread = take(reduced_BKC.double(), groups_BT)
    error = float(((dense - spread).flatten(1).norm(dim=1) / dense.flatten(1).norm(dim=1)).mean())
    if not math.isfinite(error):
        raise ParityError(
            f"block error: expected finite token states, dense ones not all zero, got a relative error of {error}; "
            "use precision fp32"
        )
    return error
