"""By how much a decision misses its definition: the parts that a method's `regret` is made of.

Shapes: B images, N tokens, R chosen ones, K candidates.
"""

import torch
from torch import Tensor


def ranking_regret(scores_BN: Tensor, chosen_BR: Tensor) -> Tensor:
    """Of a choice of the highest scores: the best one left out less the lowest one chosen, (B,); 0 if that is less."""
    left_out_B = scores_BN.scatter(1, chosen_BR, float("-inf")).amax(dim=1)
    return (left_out_B - scores_BN.gather(1, chosen_BR).amin(dim=1)).clamp_min(0)


def order_regret(scores_BR: Tensor) -> Tensor:
    """Of scores in descending order: the largest rise from one to the next, (B,); 0 if there is none."""
    rises_BR = torch.cat((torch.zeros_like(scores_BR[:, :1]), scores_BR.diff(dim=1)), dim=1)
    return rises_BR.amax(dim=1)


def partner_regret(similarity_BRK: Tensor, partner_BR: Tensor) -> Tensor:
    """Of a choice of the most similar candidate: by how much the best one is more similar, at most, (B,)."""
    chosen_BR1 = similarity_BRK.gather(2, partner_BR.unsqueeze(2))
    return (similarity_BRK.amax(dim=2) - chosen_BR1.squeeze(2)).amax(dim=1)


def worst(*parts_B: Tensor) -> Tensor:
    """The largest of several regrets, (B,)."""
    return torch.stack(parts_B).amax(dim=0)


def without_form(batch: int) -> Tensor:
    """The regret of matches that no score can put right, (B,) infinities."""
    return torch.full((batch,), float("inf"))
