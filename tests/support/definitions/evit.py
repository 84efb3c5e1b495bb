"""EViT (Liang et al. 2022, section 3.2): the best attended patches stay, the others become their weighted sum."""

import torch

from tests.support.definitions import Entering, Leaving
from tests.support.matching import Matching, keep_all


def reduce(entering: Entering) -> Leaving:
    """Fused unless the option says otherwise; sizes are those of tokens that stay, the fused one's of its best part."""
    x_NC, row, prefix = entering.tokens_NC, entering.row_N.tolist(), entering.prefix
    if entering.removed == 0:
        return Leaving(tokens_KC=x_NC, sizes_K=entering.sizes_N, matching=keep_all(len(row)))
    fused = bool(entering.options.get("fused", True))
    kept = len(row) - prefix - entering.removed - fused
    # sorted() is stable: at equal attention the lower patch stays in front
    ranked = sorted(range(prefix, len(row)), key=lambda patch: -row[patch])
    best, rest = ranked[:kept], ranked[kept:]
    stay = [*range(prefix), *best]
    rows = [x_NC[token] for token in stay]
    groups = [[token] for token in stay]
    if fused:
        rows.append(sum((row[token] * x_NC[token] for token in rest), torch.zeros_like(x_NC[0])))
        groups.append(rest)
    margin = len(row) * (row[best[-1]] - row[rest[0]])
    return Leaving(
        tokens_KC=torch.stack(rows),
        sizes_K=entering.sizes_N[[group[0] for group in groups]],
        matching=Matching(groups=groups, margin=margin),
    )
