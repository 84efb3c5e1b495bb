"""Carrying a match out without sizes: the plain mean, of tokens that come back after the attention they merge for.

Shapes: B images, N tokens, K kept, R that merge, T of the kept ones that others may merge into, C channels.

Source: Bolya and Hoffman, Token Merging for Fast Stable Diffusion, CVPR Workshops 2023, section 3.1.
"""

import torch
from torch import Tensor

from exporter.reduction.match import Match
from exporter.reduction.merge import take


def merge_plainly(tokens_BNC: Tensor, match: Match, *, targets: int) -> Tensor:
    """Every target becomes the mean of itself and what merges into it; the product is with targets only.

    Args:
        tokens_BNC: in the model's dtype.
        match: whose targets are the last of the tokens that stay.
        targets: T, how many of them there are.

    Returns:
        (B, K, C) in the dtype given.
    """
    kept_BK, source_BR, target_BR = match[:3]
    untouched = kept_BK.shape[1] - targets
    slot_T1 = torch.arange(untouched, kept_BK.shape[1], device=kept_BK.device).unsqueeze(1)
    members_BTR = (target_BR.unsqueeze(1) == slot_T1).float()
    own_BKC, sources_BRC = take(tokens_BNC, kept_BK), take(tokens_BNC, source_BR).float()
    sums_BTC = own_BKC[:, untouched:] + members_BTR @ sources_BRC
    means_BTC = sums_BTC / (members_BTR.sum(dim=2, keepdim=True) + 1)
    return torch.cat((own_BKC[:, :untouched], means_BTC.to(tokens_BNC.dtype)), dim=1)
