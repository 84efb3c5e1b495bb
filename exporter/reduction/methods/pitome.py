"""PiToMe: merge only tokens of high energy, those in large clusters of similar tokens.

Source: Tran et al., Accelerating Transformers with Spectrum-Preserving Token Merging, NeurIPS 2024, section 3.2.
"""

import torch
from torch import Tensor
from torch.nn import functional

from exporter.reduction.merge import Match
from exporter.reduction.method import Method
from exporter.reduction.ranking import partition_top


def match(metric_BNC: Tensor, *, r: int, prefix: int, depth: float, margin: float) -> Match:
    """Match within the 2r tokens of highest energy, alternately dealt into sources and destinations.

    The energy of a patch is the mean over all patches of ELU(cosine - m), where the margin m falls linearly with
    depth. Patches are dealt in descending order of energy (lowest position on ties); every source merges into its
    most similar destination (the one of higher energy on ties).

    Args:
        metric_BNC: (B, N, C) unit vectors.
        r: tokens to merge, 0 < r <= (N - prefix) // 2.
        prefix: protected tokens in front.
        depth: block index / number of blocks.
        margin: m of the first block.

    Returns:
        A match whose output order is prefix tokens, protected patches in order of position, destinations in order
        of energy.
    """
    cosine_BNN, energy_BN = _energies(metric_BNC, prefix, margin * (1 - depth))
    batch, count = energy_BN.shape
    protected, dealt = partition_top(energy_BN, 2 * r)
    positions = torch.arange(metric_BNC.shape[1], device=metric_BNC.device)
    source_BR, destination_BR = dealt[:, 0::2], dealt[:, 1::2]
    partner_BR = _best_partner(cosine_BNN, source_BR, destination_BR)
    prefix_BP = positions[:prefix].expand(batch, -1)
    kept_BK = torch.cat((prefix_BP, protected + prefix, destination_BR + prefix), dim=1)
    return Match(kept_BK, source_BR + prefix, partner_BR + (prefix + count - 2 * r))


def regret(metric_BNC: Tensor, match: Match, *, r: int, prefix: int, depth: float, margin: float) -> Tensor:
    """How far a match is from the definition of PiToMe, (B,): see `Method.regret`.

    The largest of three shortfalls: energies that rise in the order of dealing, a protected patch of higher energy
    than a dealt one, and a source's best similarity to a destination less that to its own partner. Infinite if the
    tokens are not in the output order of `match`, a prefix token is dealt, or a target is not a destination.
    """
    cosine_BNN, energy_BN = _energies(metric_BNC, prefix, margin * (1 - depth))
    kept = match.kept_BK.shape[1]
    source_BR, destination_BR = match.source_BR - prefix, match.kept_BK[:, kept - r :] - prefix
    kept_prefix, stayed = match.kept_BK[:, :prefix], match.kept_BK[:, prefix : kept - r]
    in_order = bool((kept_prefix == torch.arange(prefix)).all() and (stayed.diff(dim=1) > 0).all())
    dealt_patches = int(torch.minimum(source_BR, destination_BR).min()) >= 0
    if not (in_order and dealt_patches and int(match.target_BR.min()) >= kept - r):
        return torch.full((len(metric_BNC),), float("inf"))
    dealt_B2R = torch.stack((source_BR, destination_BR), dim=2).flatten(1)
    dealt_energy = energy_BN.gather(1, dealt_B2R)
    rise = (dealt_energy[:, 1:] - dealt_energy[:, :-1]).amax(dim=1)
    protected = energy_BN.scatter(1, dealt_B2R, float("-inf")).amax(dim=1) - dealt_energy.amin(dim=1)
    pairs_BRR = cosine_BNN[
        torch.arange(len(cosine_BNN))[:, None, None], source_BR[:, :, None], destination_BR[:, None]
    ]
    chosen_BR1 = pairs_BRR.gather(2, (match.target_BR - (kept - r)).unsqueeze(2))
    partner = (pairs_BRR.amax(dim=2) - chosen_BR1.squeeze(2)).amax(dim=1)
    return torch.stack((rise, protected, partner)).amax(dim=0).clamp_min(0)


def _energies(metric_BNC: Tensor, prefix: int, margin: float) -> tuple[Tensor, Tensor]:
    """Cosines between patches (B, N, N) and their energies (B, N)."""
    patches_BNC = metric_BNC[:, prefix:]
    cosine_BNN = patches_BNC @ patches_BNC.transpose(1, 2)
    return cosine_BNN, functional.elu(cosine_BNN - margin).mean(dim=2)


def _best_partner(cosine_BNN: Tensor, source_BR: Tensor, destination_BR: Tensor) -> Tensor:
    """For every source the index of its most similar destination, int64 (B, R)."""
    r, count = source_BR.shape[1], cosine_BNN.shape[1]
    rows_BRN = cosine_BNN.gather(1, source_BR.unsqueeze(2).expand(-1, r, count))
    pairs_BRR = rows_BRN.gather(2, destination_BR.unsqueeze(1).expand(-1, r, r))
    return pairs_BRR.max(dim=2).indices


METHOD = Method(
    name="pitome",
    reference="Tran et al., NeurIPS 2024",
    match=match,
    regret=regret,
    defaults={"margin": 0.9},
)
