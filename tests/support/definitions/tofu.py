"""ToFu: ToMe's pairs; of each, early blocks drop the source, late ones average both at the length of the longer."""

from dataclasses import replace

import torch
from torch import Tensor

from tests.support.definitions import Entering, Leaving, similarity
from tests.support.matching import Matching, keep_all, match_tome


def reduce(entering: Entering) -> Leaving:
    """Block l drops if l is below the split, and merges from there on."""
    r = min(entering.removed, (len(entering.tokens_NC) - entering.prefix) // 2)
    matching = (
        match_tome(similarity(entering), r=r, prefix=entering.prefix)
        if r
        else keep_all(len(entering.tokens_NC))
    )
    if entering.block < entering.options.get("split", entering.blocks // 2 + 1):
        matching = replace(matching, groups=[group[:1] for group in matching.groups])
    return fused(entering, matching)


def fused(entering: Entering, matching: Matching) -> Leaving:
    """MLERP of every group: its mean, rescaled to the norm of its longest member."""
    weighted = entering.options.get("weighted", True)
    rows, sizes = list[Tensor](), list[Tensor]()
    for group in matching.groups:
        members, weights = entering.tokens_NC[group], entering.sizes_N[group]
        mean = sum(weight * member for weight, member in zip(weights, members, strict=True)) / weights.sum()
        if not weighted:
            mean = members.mean(dim=0)
        longest = max(float(member.norm()) for member in members)
        rows.append(mean / mean.norm() * longest)
        sizes.append(weights.sum() if weighted else weights[0])
    return Leaving(tokens_KC=torch.stack(rows), sizes_K=torch.stack(sizes), matching=matching)
