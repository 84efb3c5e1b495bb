"""Which tokens merge with which, for one image: the definitions, in the plainest way.

Both methods answer with *groups*: the tokens that leave the block, in order, each as the list of the tokens
that enter it. Decisions are made on Python lists of float64; nothing is shared with the package under test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import torch
from torch import Tensor

Method = str
"""The name of a method; `tests.support.definitions` has them."""


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Groups of one image, and how far the nearest other decision was. A token in no group was dropped.

    `margin` is the smallest difference of scores that decided anything: what rounding must
    reach to change a group.
    """

    groups: list[list[int]]
    margin: float


def keep_all(tokens: int) -> Matching:
    """Return the matching of a block that merges nothing: every token stays, where it is."""
    return Matching(groups=[[token] for token in range(tokens)], margin=math.inf)


def cosine(metric_NC: Tensor) -> list[list[float]]:
    """Return the cosine similarity of every token with every token, in float64."""
    metric_NC = metric_NC.double()
    unit_NC = metric_NC / metric_NC.norm(dim=1, keepdim=True)
    similarity: list[list[float]] = (unit_NC @ unit_NC.T).tolist()
    return similarity


def match_tome(similarity: Sequence[Sequence[float]], *, r: int, prefix: int) -> Matching:
    """Match as ToMe does (Bolya et al. 2023, section 3): even positions into odd ones, the r best pairs."""
    tokens = len(similarity)
    sources = [token for token in range(prefix, tokens) if token % 2 == 0]
    destinations = [token for token in range(prefix, tokens) if token % 2 == 1]
    best = {source: best_destination(similarity[source], destinations) for source in sources}
    # sorted() is stable: at equal scores the lower source stays in front
    ranked = sorted(sources, key=lambda source: -similarity[source][best[source]])
    chosen = ranked[:r]

    groups = [[token] for token in range(prefix)]
    groups += [[source] for source in sources if source not in chosen]
    for destination in destinations:
        groups.append([destination] + [source for source in sorted(chosen) if best[source] == destination])

    margins = [lead(similarity[source], destinations) for source in chosen]
    if r < len(ranked):
        last, next_one = ranked[r - 1], ranked[r]
        margins.append(similarity[last][best[last]] - similarity[next_one][best[next_one]])
    return Matching(groups=groups, margin=min(margins))


def match_pitome(
    similarity: Sequence[Sequence[float]],
    *,
    r: int,
    prefix: int,
    margin: float,
    energy: str = "elu",
    deal: str = "alternate",
) -> Matching:
    """Match as PiToMe does (Tran et al. 2024, section 3): half of the 2r most energetic patches merge.

    Dealt in halves, as in the published code for BERT: the r most energetic ones merge into the next r.
    """
    energies, ranked = ranked_by_energy(similarity, prefix=prefix, margin=margin, energy=energy)
    mergeable, kept = ranked[: 2 * r], sorted(ranked[2 * r :])
    sources, destinations = mergeable[0::2], mergeable[1::2]
    if deal == "halves":
        sources, destinations = mergeable[:r], mergeable[r:]
    best = {source: best_destination(similarity[source], destinations) for source in sources}

    groups = [[token] for token in range(prefix)]
    groups += [[patch] for patch in kept]
    for destination in destinations:
        groups.append([destination] + [source for source in sources if best[source] == destination])

    margins = [lead(similarity[source], destinations) for source in sources]
    margins += [energies[patch] - energies[next_one] for patch, next_one in pairwise(ranked[: 2 * r + 1])]
    return Matching(groups=groups, margin=min(margins))


def match_pitome_everywhere(
    similarity: Sequence[Sequence[float]], *, r: int, prefix: int, margin: float, energy: str = "elu"
) -> Matching:
    """Match as the published code does in its bipartite blocks: of all patches, dealt by energy, the r best pairs."""
    energies, ranked = ranked_by_energy(similarity, prefix=prefix, margin=margin, energy=energy)
    sources, destinations = ranked[0::2], ranked[1::2]
    best = {source: best_destination(similarity[source], destinations) for source in sources}
    # sorted() is stable: at equal scores the source of higher energy stays in front
    by_similarity = sorted(sources, key=lambda source: -similarity[source][best[source]])
    merging = by_similarity[:r]

    groups = [[token] for token in range(prefix)]
    groups += [[source] for source in sources if source not in merging]
    for destination in destinations:
        groups.append([destination] + [source for source in merging if best[source] == destination])

    margins = [lead(similarity[source], destinations) for source in merging]
    margins += [energies[patch] - energies[next_one] for patch, next_one in pairwise(ranked)]
    if r < len(by_similarity):
        last, next_one = by_similarity[r - 1], by_similarity[r]
        margins.append(similarity[last][best[last]] - similarity[next_one][best[next_one]])
    return Matching(groups=groups, margin=min(margins))


def ranked_by_energy(
    similarity: Sequence[Sequence[float]], *, prefix: int, margin: float, energy: str
) -> tuple[dict[int, float], list[int]]:
    """Return the energy of every patch, and the patches from the highest to the lowest."""
    patches = range(prefix, len(similarity))

    def adds(cosine: float) -> float:
        if energy == "gaussian":
            return NormalDist(mu=1, sigma=1 - margin).pdf(cosine)
        return elu(cosine - margin) if energy == "elu" else paper(cosine, margin)

    energies = {i: sum(adds(similarity[i][j]) for j in patches) / len(patches) for i in patches}
    return energies, sorted(patches, key=lambda patch: -energies[patch])


def best_destination(scores: Sequence[float], destinations: Sequence[int]) -> int:
    """Return the destination with the highest score; of equal ones the first."""
    best = destinations[0]
    for destination in destinations[1:]:
        if scores[destination] > scores[best]:
            best = destination
    return best


def lead(scores: Sequence[float], destinations: Sequence[int]) -> float:
    """Return by how much the best destination beats the second best."""
    if len(destinations) == 1:
        return math.inf
    first, second = sorted((scores[destination] for destination in destinations), reverse=True)[:2]
    return first - second


def elu(value: float) -> float:
    """Return the exponential linear unit with alpha 1."""
    return value if value > 0 else math.exp(value) - 1


def paper(cosine: float, margin: float) -> float:
    """Return PiToMe's f as its paper writes it (section 3.2): the cosine itself from the margin on."""
    return cosine if cosine >= margin else math.exp(cosine - margin) - 1


def merge(x_NC: Tensor, size_N: Tensor, groups: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Merge the tokens of one image: the mean of every group, weighted by size, and the group's size.

    Returns:
        x_MC and size_M, one row per group.
    """
    rows, sizes = [], []
    for group in groups:
        size = size_N[group].sum()
        rows.append((x_NC[group] * size_N[group, None]).sum(dim=0) / size)
        sizes.append(size)
    return torch.stack(rows), torch.stack(sizes)
