"""PPT (Wu et al. 2023, section 3.4): per image, drop the least significant patches, or merge as ToMe does."""

from itertools import pairwise

import torch
from torch import Tensor

from tests.support.definitions import Entering, Leaving, weighed
from tests.support.matching import Matching, cosine, keep_all, match_tome

THRESHOLD = 7e-5


def reduce(entering: Entering) -> Leaving:
    """Drop where the significance varies by the threshold at least, merge where it varies less."""
    r, prefix = entering.removed, entering.prefix
    if r == 0:
        return weighed(entering, keep_all(len(entering.row_N)))
    score = significance(entering.row_N[prefix:].tolist(), entering.values_HND[:, prefix:])
    mean = sum(score) / len(score)
    variance = sum((each - mean) ** 2 for each in score) / (len(score) - 1)
    threshold = entering.options.get("threshold", THRESHOLD)
    if variance >= threshold:
        matching = drop_least(score, r, prefix)
    else:
        matching = match_tome(cosine(entering.keys_HND.mean(dim=0)), r=r, prefix=prefix)
    margin = min(matching.margin, abs((variance - threshold) / threshold))
    return weighed(entering, Matching(groups=matching.groups, margin=margin))


def significance(row: list[float], values_HPD: Tensor) -> list[float]:
    """The class token's attention to each patch times the length of its value over all heads; they sum to 1."""
    lengths = [float(torch.linalg.vector_norm(values_HPD[:, patch])) for patch in range(len(row))]
    products = [attention * length for attention, length in zip(row, lengths, strict=True)]
    return [product / sum(products) for product in products]


def drop_least(score: list[float], r: int, prefix: int) -> Matching:
    """Those that stay stand in the order of their score, which later blocks of ToMe split by."""
    # sorted() is stable: at equal scores the lower patch stays in front
    ranked = sorted(range(len(score)), key=lambda patch: -score[patch])
    stay = ranked[: len(ranked) - r]
    groups = [[token] for token in [*range(prefix), *(patch + prefix for patch in stay)]]
    leads = [score[before] - score[after] for before, after in pairwise(ranked[: len(stay) + 1])]
    return Matching(groups=groups, margin=len(score) * min(leads))
