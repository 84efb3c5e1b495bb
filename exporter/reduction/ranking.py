"""Deterministic selection: the highest scores, the lower index first on ties, the same on every backend.

The order is one stable sort. In ONNX it is TopK, which puts the lower index first by specification; engines that
promise no order among ties count ranks instead (`rewrite.decompose_stable_sort`): every pair is compared, which is
exact, and only distinct integers are ever sorted. N^2 comparisons are far below one attention head.
"""

import torch
from torch import Tensor


def order_descending(scores_BN: Tensor) -> Tensor:
    """Positions from the highest score to the lowest, equal scores by position: int64 (B, N)."""
    return torch.sort(scores_BN, dim=1, descending=True, stable=True).indices


def ascending(numbers_BN: Tensor) -> Tensor:
    """Integers in ascending order; equal ones cannot be told apart, so that any sort will do."""
    return torch.topk(numbers_BN, numbers_BN.shape[1], dim=1, largest=False, sorted=True).values


def partition_top(scores_BN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Split positions into the rest, in order of position, and the `count` highest scores, the highest first.

    Returns:
        int64 (B, N - count) and (B, count).
    """
    order_BN = order_descending(scores_BN)
    return ascending(order_BN[:, count:]), order_BN[:, :count]


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
