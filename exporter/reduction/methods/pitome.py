"""PiToMe: merge only tokens of high energy, those in large clusters of similar tokens.

Source: Tran et al., Accelerating Transformers with Spectrum-Preserving Token Merging, NeurIPS 2024, section 3.2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site
from exporter.reduction.ranking import partition_top
from exporter.reduction.regret import order_regret, partner_regret, ranking_regret, without_form, worst
from exporter.reduction.signals import mean_key


def decide(keys_BHND: Tensor, *, at: Site, margin: float) -> Match:
    """Match within the 2r tokens of highest energy, alternately dealt into sources and destinations.

    The energy of a patch is the mean over all patches of ELU(cosine - m), where the margin m falls linearly with
    depth and the cosine is that of the mean keys. Patches are dealt in descending order of energy (lowest position
    on ties); every source merges into its most similar destination (the one of higher energy on ties).

    Args:
        keys_BHND: the attention's keys.
        at: 0 < r <= (N - prefix) // 2.
        margin: m of the first block.

    Returns:
        A match whose output order is prefix tokens, protected patches in order of position, destinations in order
        of energy.
    """
    metric_BND = mean_key(keys_BHND)
    cosine_BNN, energy_BN = _energies(metric_BND, at, margin)
    batch, count = energy_BN.shape
    protected, dealt = partition_top(energy_BN, 2 * at.r)
    positions = torch.arange(metric_BND.shape[1], device=metric_BND.device)
    source_BR, destination_BR = dealt[:, 0::2], dealt[:, 1::2]
    partner_BR = _pairs(cosine_BNN, source_BR, destination_BR).max(dim=2).indices
    prefix_BP = positions[: at.prefix].expand(batch, -1)
    kept_BK = torch.cat((prefix_BP, protected + at.prefix, destination_BR + at.prefix), dim=1)
    return Match(kept_BK, source_BR + at.prefix, partner_BR + (at.prefix + count - 2 * at.r))


def regret(keys_BHND: Tensor, *, match: Match, at: Site, margin: float) -> Tensor:
    """How far a match is from the definition of PiToMe, (B,): see `Method.regret`.

    The largest of three shortfalls: energies that rise in the order of dealing, a protected patch of higher energy
    than a dealt one, and a source's best similarity to a destination less that to its own partner. Infinite if the
    tokens are not in the output order of `decide`, a prefix token is dealt, or a target is not a destination.
    """
    cosine_BNN, energy_BN = _energies(mean_key(keys_BHND), at, margin)
    first = match.kept_BK.shape[1] - at.r
    kept_prefix, stayed, destinations = match.kept_BK.tensor_split((at.prefix, first), dim=1)
    source_BR, destination_BR = match.source_BR - at.prefix, destinations - at.prefix
    in_order = bool((kept_prefix == torch.arange(at.prefix)).all() and (stayed.diff(dim=1) > 0).all())
    dealt_patches = int(torch.minimum(source_BR, destination_BR).min()) >= 0
    if not (in_order and dealt_patches and int(match.target_BR.min()) >= first):
        return without_form(len(cosine_BNN))
    dealt_B2R = torch.stack((source_BR, destination_BR), dim=2).flatten(1)
    return worst(
        order_regret(energy_BN.gather(1, dealt_B2R)),
        ranking_regret(energy_BN, dealt_B2R),
        partner_regret(_pairs(cosine_BNN, source_BR, destination_BR), match.target_BR - first),
    )


def _energies(metric_BND: Tensor, at: Site, margin: float) -> tuple[Tensor, Tensor]:
    """Cosines between patches (B, N, N) and their energies (B, N)."""
    patches_BND = metric_BND[:, at.prefix :]
    cosine_BNN = patches_BND @ patches_BND.transpose(1, 2)
    return cosine_BNN, functional.elu(cosine_BNN - margin * (1 - at.depth)).mean(dim=2)


def _pairs(cosine_BNN: Tensor, source_BR: Tensor, destination_BR: Tensor) -> Tensor:
    """Cosines of every source with every destination, (B, R, R)."""
    r, count = source_BR.shape[1], cosine_BNN.shape[1]
    rows_BRN = cosine_BNN.gather(1, source_BR.unsqueeze(2).expand(-1, r, count))
    return rows_BRN.gather(2, destination_BR.unsqueeze(1).expand(-1, r, r))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of PiToMe.

    Attributes:
        margin: cosine above which patches count as similar, in the first block; it falls to 0 with depth.
    """

    margin: float = 0.9


METHOD = Method(
    name="pitome",
    reference="Tran et al., Accelerating Transformers with Spectrum-Preserving Token Merging, NeurIPS 2024",
    does="merges r patches of high energy, which have many similar ones, with the most similar of r others",
    licence="CC BY-NC 4.0",
    decide=decide,
    regret=regret,
    options=Options,
    kernels="exporter.kernels.matching:decide_pitome",
)
