"""DiffRate (Chen et al. 2023, section 3): patches in the order of the class token's attention; the last ones are
dropped, those before them merge into the most similar of those that stay."""

import math

import torch
from torch import Tensor

from tests.support.definitions import Entering, Leaving
from tests.support.matching import Matching, best_destination, cosine, keep_all, lead

LEAST_SIZE = 1e-6


def reduce(entering: Entering) -> Leaving:
    """New token: plain mean of a destination and its sources; new size: sources count by their cosine."""
    x_NC, row, prefix = entering.tokens_NC, entering.row_N.tolist(), entering.prefix
    if entering.removed == 0:
        return Leaving(tokens_KC=x_NC, sizes_K=entering.sizes_N, matching=keep_all(len(row)))
    # sorted() is stable: at equal attention the lower patch stays in front
    ranked = sorted(range(prefix, len(row)), key=lambda patch: -row[patch])
    after_drop = len(ranked) - entering.dropped
    after_merge = len(ranked) - entering.removed
    kept, sources = ranked[:after_merge], ranked[after_merge:after_drop]
    similarity = cosine(x_NC)
    best = {source: best_destination(similarity[source], kept) for source in sources}
    tokens, sizes, groups = [], [], []
    for token in [*range(prefix), *kept]:
        into = [source for source in sources if best[source] == token]
        tokens.append(mean(x_NC, [token, *into]))
        gained = sum(entering.sizes_N[source] * similarity[source][token] for source in into)
        sizes.append(max(float(entering.sizes_N[token] + gained), LEAST_SIZE))
        groups.append([token, *into])
    # a swap among those that merge changes nothing, nor one among those that are dropped or that stay
    edges = [edge for edge in (after_merge, after_drop) if edge < len(ranked)]
    margins = [len(row) * (row[ranked[edge - 1]] - row[ranked[edge]]) for edge in edges]
    margins += [lead(similarity[source], kept) for source in sources]
    return Leaving(
        tokens_KC=torch.stack(tokens),
        sizes_K=x_NC.new_tensor(sizes),
        matching=Matching(groups=groups, margin=min(margins, default=math.inf)),
    )


def mean(x_NC: Tensor, group: list[int]) -> Tensor:
    """The mean of some tokens."""
    return sum((x_NC[token] for token in group), torch.zeros_like(x_NC[0])) / len(group)
