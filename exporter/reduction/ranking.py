"""Deterministic selection: the highest scores, the lower index first on ties, the same on every backend.

`torch.sort(stable=True)` has no ONNX translation and `torch.topk` promises no order among ties, so ranks are counted
by comparing all pairs, which is exact, and only distinct integers are ever sorted. N^2 comparisons are far below one
attention head.
"""

import torch
from torch import Tensor


def ranks_descending(scores_BN: Tensor) -> Tensor:
    """Place of every score in descending order, equal scores by index: int64 (B, N), a permutation of 0..N-1."""
    column_BN1, row_B1N = scores_BN.unsqueeze(2), scores_BN.unsqueeze(1)
    index_N = torch.arange(scores_BN.shape[1], device=scores_BN.device)
    earlier_NN = index_N.unsqueeze(0) < index_N.unsqueeze(1)
    precedes_BNN = (row_B1N > column_BN1) | ((row_B1N == column_BN1) & earlier_NN)
    return precedes_BNN.sum(dim=2)


def argsort_distinct(keys_BN: Tensor) -> Tensor:
    """Positions in ascending order of integer keys, no two of which are equal: int64 (B, N)."""
    return torch.topk(keys_BN.float(), keys_BN.shape[1], dim=1, largest=False, sorted=True).indices


def partition_top(scores_BN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Split positions into the rest and the `count` highest scores, both in ascending order of position.

    Returns:
        int64 (B, N - count) and (B, count).
    """
    total = scores_BN.shape[1]
    chosen_BN = ranks_descending(scores_BN) < count
    order_BN = argsort_distinct(torch.arange(total, device=scores_BN.device) + chosen_BN * total)
    return order_BN[:, : total - count], order_BN[:, total - count :]
