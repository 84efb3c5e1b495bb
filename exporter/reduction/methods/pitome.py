"""PiToMe: merge only tokens of high energy, those in large clusters of similar tokens.

Source: Tran et al., Accelerating Transformers with Spectrum-Preserving Token Merging, NeurIPS 2024, section 3.2.
"""

import torch
from torch import Tensor
from torch.nn import functional

from exporter.reduction.merge import Match
from exporter.reduction.method import Method
from exporter.reduction.ranking import argsort_distinct, ranks_descending


def match(metric_BNC: Tensor, *, r: int, prefix: int, depth: float, margin: float) -> Match:
    """Match within the 2r tokens of highest energy, alternately dealt into sources and destinations.

    The energy of a patch is the mean over all patches of ELU(cosine - m), where the margin m falls linearly with
    depth. Patches are dealt in descending order of energy (lowest position on ties); every source merges into its
    most similar destination (the one of higher energy on ties).

    Args:
        metric_BNC: (B, N, C) unit vectors.
        r: tokens to merge, 0 < r <= (N - prefix) // 2.
        prefix: protected tokens in front.
        depth: block index / number of blocks.
        margin: m of the first block.

    Returns:
        A match whose output order is prefix tokens, protected patches in order of position, destinations in order
        of energy.
    """
    patches_BNC = metric_BNC[:, prefix:]
    batch, count, _ = patches_BNC.shape
    cosine_BNN = patches_BNC @ patches_BNC.transpose(1, 2)
    energy_BN = functional.elu(cosine_BNN - margin * (1 - depth)).mean(dim=2)
    rank_BN = ranks_descending(energy_BN)
    positions = torch.arange(metric_BNC.shape[1], device=metric_BNC.device)
    protected_first = torch.where(rank_BN < 2 * r, rank_BN + count, positions[:count])
    order_BN = argsort_distinct(protected_first)
    protected, dealt = order_BN[:, : count - 2 * r], order_BN[:, count - 2 * r :]
    source_BR, destination_BR = dealt[:, 0::2], dealt[:, 1::2]
    partner_BR = _best_partner(cosine_BNN, source_BR, destination_BR)
    prefix_BP = positions[:prefix].expand(batch, -1)
    kept_BK = torch.cat((prefix_BP, protected + prefix, destination_BR + prefix), dim=1)
    return Match(kept_BK, source_BR + prefix, partner_BR + (prefix + count - 2 * r))


def _best_partner(cosine_BNN: Tensor, source_BR: Tensor, destination_BR: Tensor) -> Tensor:
    """For every source the index of its most similar destination, int64 (B, R)."""
    r, count = source_BR.shape[1], cosine_BNN.shape[1]
    rows_BRN = cosine_BNN.gather(1, source_BR.unsqueeze(2).expand(-1, r, count))
    pairs_BRR = rows_BRN.gather(2, destination_BR.unsqueeze(1).expand(-1, r, r))
    return pairs_BRR.max(dim=2).indices


METHOD = Method(
    name="pitome", reference="Tran et al., NeurIPS 2024", match=match, defaults={"margin": 0.9}
)
