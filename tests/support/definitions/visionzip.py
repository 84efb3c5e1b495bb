"""VisionZip (Yang et al. 2025, section 3.2): dominant patches stay, the others become contextual tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.support.matching import best_destination, cosine, lead


@dataclass(frozen=True, kw_only=True)
class Zipped:
    """The tokens of one image that are left, and how far the nearest other decision was."""

    tokens_KC: Tensor
    margin: float


def compress(
    tokens_NC: Tensor, row: list[float], metric_ND: Tensor, *, dominant: int, contextual: int, prefix: int
) -> Zipped:
    """Compress the tokens of one image.

    Args:
        tokens_NC: at the end of a block.
        row: the class token's attention to every token in that block, summed over heads.
        metric_ND: its keys, mean over heads.
        dominant: patches that stay.
        contextual: patches that stay and take others in.
        prefix: tokens in front that are no patches.
    """
    # sorted() is stable: at equal attention the lower patch stays in front
    ranked = sorted(range(prefix, len(row)), key=lambda patch: -row[patch])
    best, rest = sorted(ranked[:dominant]), sorted(ranked[dominant:])
    step = len(rest) // contextual
    targets = [rest[place] for place in range(0, len(rest), step)][:contextual]
    similarity = cosine(metric_ND)
    assigned: dict[int, list[int]] = {target: [] for target in targets}
    margins = [row[ranked[dominant - 1]] - row[ranked[dominant]]]
    for patch in rest:
        if patch not in targets:
            assigned[best_destination(similarity[patch], targets)].append(patch)
            margins.append(lead(similarity[patch], targets))
    rows = [tokens_NC[token] for token in [*range(prefix), *best]]
    for target, patches in assigned.items():
        added = sum((tokens_NC[patch] for patch in patches), torch.zeros_like(tokens_NC[0]))
        rows.append(tokens_NC[target] + added / max(len(patches), 1))
    return Zipped(tokens_KC=torch.stack(rows), margin=min(margins))
