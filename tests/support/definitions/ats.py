"""ATS (Fayyaz et al. 2022, section 3): draw the patches whose cumulative scores are nearest to the samples."""

import math
from dataclasses import dataclass

import torch

from tests.support.definitions import Entering, Leaving, weighed
from tests.support.matching import Matching, keep_all


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The patches of one image that are drawn, by position, and how far the nearest other decision was."""

    patches: list[int]
    needed: int
    margin: float


def reduce(entering: Entering) -> Leaving:
    """Only the patches that are drawn stay, another number in every image."""
    row, prefix = entering.row_N.tolist(), entering.prefix
    if entering.removed == 0:
        return weighed(entering, keep_all(len(row)))
    lengths = [float(torch.linalg.vector_norm(entering.values_HND[:, token])) for token in range(len(row))]
    products = [row[token] * lengths[token] for token in range(prefix, len(row))]
    found = draw(
        [product / sum(products) for product in products],
        order=str(entering.options.get("order", "ascending")),
        first=entering.first - prefix,
        slots=entering.slots - prefix,
    )
    groups = [[token] for token in [*range(prefix), *(prefix + patch for patch in found.patches)]]
    return weighed(entering, Matching(groups=groups, margin=found.margin))


def draw(score: list[float], *, order: str, first: int, slots: int) -> Drawing:
    """Draw patches of one image, none of them absent.

    Args:
        score: of every patch; they sum to 1.
        order: in which scores are summed: ascending, or by token.
        first: patches that enter the first block.
        slots: patches that can stay.
    """
    if order == "token":
        sequence = list(range(len(score)))
        sums = cumulative([score[patch] for patch in sequence])
        samples = [(2 * i - 1) / (2 * slots) for i in range(1, slots + 1)]
    else:
        # of equal scores the last patch comes first
        sequence = sorted(range(len(score)), key=lambda patch: (score[patch], -patch))
        sums = cumulative([score[patch] for patch in sequence])
        lowest, highest = sums[0], sums[-1]
        sums = [(each - lowest) / (highest - lowest) if highest > lowest else 0.0 for each in sums]
        start = min((each for each in sums if each > 0), default=1.0)
        samples = [start + (1 - start) * i / (first - 1) for i in range(first)]
    drawn, margins = set(), []
    for sample in samples:
        distances = [abs(sample - each) for each in sums]
        nearest = distances.index(min(distances))
        drawn.add(sequence[nearest])
        others = [each for place, each in enumerate(distances) if place != nearest]
        margins.append(min(others, default=math.inf) - distances[nearest])
    ranked = sorted(drawn, key=lambda patch: (-score[patch], patch))
    if len(ranked) > slots:
        margins.append((score[ranked[slots - 1]] - score[ranked[slots]]) / (max(score) - min(score)))
    return Drawing(patches=sorted(ranked[:slots]), needed=len(ranked), margin=min(margins))


def cumulative(numbers: list[float]) -> list[float]:
    """The sum of the numbers up to each of them."""
    return [math.fsum(numbers[: place + 1]) for place in range(len(numbers))]
