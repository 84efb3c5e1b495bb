"""Legalisation: stable sorts become comparisons of all pairs, for engines whose sort promises no order among ties.

In: a captured program. Out: the same program without a stable sort. It runs behind the second capture, since only
there the reduction's functions have become operators.
"""

import torch
from torch import Tensor
from torch.export import ExportedProgram

from exporter.errors import InternalError
from exporter.reduction.ranking import argsort_distinct, ranks_descending

_STABLE_SORT = torch.ops.aten.sort.stable


def decompose_stable_sort(exported: ExportedProgram) -> ExportedProgram:
    """Spell every stable sort out.

    Given: `sort(scores, stable=True, dim=1, descending=True)` of (B, N).
    Result: ranks counted from N x N comparisons, and a sort of these distinct integers, which every engine does alike.
    """
    with torch.no_grad():
        decomposed: ExportedProgram = exported.run_decompositions({_STABLE_SORT: _sort_by_comparison})
    return decomposed


def _sort_by_comparison(
    values_BN: Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    if values_BN.dim() != 2 or dim not in (1, -1) or not descending:
        raise InternalError(f"a stable sort of {values_BN.dim()} axes along {dim}, descending: {descending}")
    order_BN = argsort_distinct(ranks_descending(values_BN))
    return values_BN.gather(1, order_BN), order_BN
