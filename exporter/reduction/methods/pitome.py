"""PiToMe: merge only patches of high energy, those in large clusters of similar patches.

The paper merges the 2r patches of highest energy, half of them into the other half. The code that its authors published
for images does so in half of the blocks only; in the others every patch takes part, and the r most similar pairs merge,
as in ToMe. The option `bipartite` has both.

Within 2r patches a source may find no partner that is like it. On a trained ViT-S/14 and photos the paper's form
changed more answers than dropping patches by lot; the bipartite forms came close to ToMe, and the one in which every
patch takes part in every block was closest to the dense model, there and on `vit_fashion`: it is the default
(tools/measurements/vit_s14_methods_eager_2026-11-28.json, vit_fashion_pitome_eager_2026-11-28.json).

For BERT the published code has a third form: an energy by a Gaussian of the cosine, and of the 2r patches the r of
highest energy merge into the others (`energy=gaussian`, `deal=halves`, `bipartite=none`), without log(size).

Source: Tran et al., Accelerating Transformers with Spectrum-Preserving Token Merging, NeurIPS 2024, section 3.2;
github.com/hchautran/PiToMe at 550b5de for what its code does.

Shapes: B images, N patches, X sources and Y destinations that are dealt, R that merge.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from exporter.errors import UsageError
from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site, compared_by
from exporter.reduction.padding import NEVER, compact, filled_slots, present, quotient, spread
from exporter.reduction.ranking import order_descending, partition_top
from exporter.reduction.regret import order_regret, partner_regret, ranking_regret, without_form, worst
from exporter.reduction.signals import comparable

_ROUNDING = 1e-6  # of a cosine in fp32


def decide(
    compared: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    at: Site,
    margin: float,
    energy: str,
    bipartite: str,
    deal: str = "alternate",
    **_options: object,
) -> Match:
    """Match within the 2r patches of highest energy, dealt into sources and destinations.

    The energy of a patch is the mean over all patches of f(cosine), where the cosine is that of the mean keys or of the
    tokens, and the margin m falls linearly with depth: f is one of `Options.energy`. Patches are dealt in descending
    order of energy (lowest position on ties), alternately or first the sources and then the destinations; every source
    merges into its most similar destination (the one of higher energy on ties).

    In blocks that are bipartite, all patches are dealt, and of the sources the r merge that are most similar to their
    destination (the one of higher energy on ties).

    Of a text with padding, the energy is the mean over the tokens that are there, and padding is dealt last. Where
    these are an odd number below 2r, the one of lowest energy (in a bipartite block, the least similar source) stays.

    Args:
        compared: the attention's keys (B, H, N, D), or the tokens (B, N, C).
        sizes_BN1: fp32, 0 for padding; None where there is none.
        at: 0 < r <= (N - prefix) // 2.
        margin: m of the first block.
        energy: see `Options`, as the next two.
        bipartite: blocks.
        deal: `alternate` or `halves`.

    Returns:
        A match whose output order is prefix tokens, then protected patches in order of position, or in a bipartite
        block the sources that stay in order of energy, then destinations in order of energy.
    """
    cosine_BNN, energy_BN = _energies(comparable(compared), sizes_BN1, at, margin, energy)
    everywhere = is_bipartite(bipartite, at)
    if everywhere:
        staying, source_BR, destination_BY, partner_BR = _deal_all(cosine_BNN, energy_BN, at.r)
    else:
        halves = _halves(energy_BN, sizes_BN1, at) if deal == "halves" else None
        staying, source_BR, destination_BY, partner_BR = _deal_top(cosine_BNN, energy_BN, at.r, halves)
    if sizes_BN1 is not None:
        count_B1, is_odd_BR = _odd_one(sizes_BN1, at)
        partner_BR = torch.where(is_odd_BR, quotient(count_B1, 2), partner_BR)
    positions = torch.arange(compared.shape[-2], device=compared.device)
    prefix_BP = positions[: at.prefix].expand(energy_BN.shape[0], -1)
    kept_BK = torch.cat((prefix_BP, staying + at.prefix, destination_BY + at.prefix), dim=1)
    match = Match(kept_BK, source_BR + at.prefix, partner_BR + (at.prefix + staying.shape[1]))
    return match if sizes_BN1 is None else compact(match, _filled(sizes_BN1, at, everywhere=everywhere))


def regret(
    compared: Tensor,
    sizes_BN1: Tensor | None = None,
    *,
    match: Match,
    at: Site,
    margin: float,
    energy: str,
    bipartite: str,
    deal: str = "alternate",
    **_options: object,
) -> Tensor:
    """How far a match is from the definition of PiToMe, (B,): see `Method.regret`.

    The largest of three shortfalls: energies that rise in the order of dealing, a protected patch of higher energy
    than a dealt one (in a bipartite block a source that stays and is more similar to its destination than one that
    merges), and a source's best similarity to a destination less that to its own partner. Infinite if the tokens are
    not in the output order of `decide`, a prefix token is dealt, or a target is not a destination.
    """
    cosine_BNN, energy_BN = _energies(comparable(compared), sizes_BN1, at, margin, energy)
    everywhere, patches = is_bipartite(bipartite, at), energy_BN.shape[1]
    if sizes_BN1 is not None:
        match = spread(match, _filled(sizes_BN1, at, everywhere=everywhere))
    first = match.kept_BK.shape[1] - (patches // 2 if everywhere else at.r)
    kept_prefix, stayed, destinations = match.kept_BK.tensor_split((at.prefix, first), dim=1)
    staying, source_BR, destination_BY = (
        part - at.prefix for part in (stayed, match.source_BR, destinations)
    )
    in_order = bool((kept_prefix == torch.arange(at.prefix)).all())
    dealt_patches = min(int(part.min()) for part in (source_BR, destination_BY)) >= 0
    sorted_or_ranked = everywhere or bool((staying.diff(dim=1) > 0).all())
    if not (in_order and dealt_patches and sorted_or_ranked and int(match.target_BR.min()) >= first):
        return without_form(len(cosine_BNN))
    pairs_BRY, partner_BR = _pairs(cosine_BNN, source_BR, destination_BY), match.target_BR - first
    best_BR = pairs_BRY.amax(dim=2)
    if sizes_BN1 is not None:
        count_B1, is_odd_BR = _odd_one(sizes_BN1, at)
        if bool((is_odd_BR & (partner_BR != quotient(count_B1, 2))).any()):
            return without_form(len(cosine_BNN))
        pairs_BRY = torch.where(is_odd_BR.unsqueeze(2), NEVER, pairs_BRY)
    partner = partner_regret(pairs_BRY, partner_BR)
    if everywhere and sizes_BN1 is not None:
        partner = worst(partner, order_regret(best_BR))
    if everywhere:
        sources_BX = torch.cat((staying, source_BR), dim=1)
        best_BX = _pairs(cosine_BNN, sources_BX, destination_BY).amax(dim=2)
        merging = torch.arange(staying.shape[1], sources_BX.shape[1]).expand(len(best_BX), -1)
        partner = worst(partner, ranking_regret(best_BX, merging))
        energies = _dealing_regret(energy_BN, sources_BX, destination_BY)
    else:
        dealt_B2R = torch.stack((source_BR, destination_BY), dim=2).flatten(1)
        if deal == "halves":
            in_halves = torch.cat((source_BR, destination_BY), dim=1)
            dealt_B2R = in_halves.gather(
                1, _halves(energy_BN, sizes_BN1, at).argsort(dim=1).expand_as(in_halves)
            )
        energies = worst(order_regret(energy_BN.gather(1, dealt_B2R)), ranking_regret(energy_BN, dealt_B2R))
    undecided = _jump(cosine_BNN, margin * (1 - at.depth)) if energy == "paper" else 0.0
    return worst((energies - undecided).clamp_min(0), partner)


def is_bipartite(bipartite: str, at: Site) -> bool:
    """Whether a block deals all patches and not only those of highest energy."""
    return bipartite in ("all", "first-half" if at.depth < 0.5 else "second-half")


def _halves(energy_BN: Tensor, sizes_BN1: Tensor | None, at: Site) -> Tensor:
    """Places in descending order of energy of r sources, then of r destinations: int64 (B, 2r), or (1, 2r).

    Of a text with fewer than 2r patches both are half of those that are there.
    """
    if sizes_BN1 is None:
        return torch.arange(2 * at.r, device=energy_BN.device).unsqueeze(0)
    places_R = torch.arange(at.r, device=energy_BN.device)
    count_B1 = present(sizes_BN1[:, at.prefix :]).long().sum(dim=1, keepdim=True)
    half_B1 = quotient(count_B1, 2).clamp_max(at.r)
    is_there_BR = places_R < half_B1
    source_BR = torch.where(is_there_BR, places_R, places_R + half_B1)
    return torch.cat((source_BR, places_R + torch.where(is_there_BR, half_B1, at.r)), dim=1)


def _deal_top(
    cosine_BNN: Tensor, energy_BN: Tensor, r: int, halves_B2R: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Patches that stay, sources, destinations, and the place among these of each source's partner."""
    protected, dealt = partition_top(energy_BN, 2 * r)
    if halves_B2R is None:
        source_BR, destination_BR = dealt[:, 0::2], dealt[:, 1::2]
    else:
        in_halves = dealt.gather(1, halves_B2R.expand_as(dealt))
        source_BR, destination_BR = in_halves[:, :r], in_halves[:, r:]
    return (
        protected,
        source_BR,
        destination_BR,
        _pairs(cosine_BNN, source_BR, destination_BR).max(dim=2).indices,
    )


def _deal_all(cosine_BNN: Tensor, energy_BN: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `_deal_top`; what stays are sources that do not merge."""
    order_BN = order_descending(energy_BN)
    source_BX, destination_BY = order_BN[:, 0::2], order_BN[:, 1::2]
    best_BX, partner_BX = _pairs(cosine_BNN, source_BX, destination_BY).max(dim=2)
    staying, merging = partition_top(best_BX, r)
    sources = source_BX.gather(1, staying), source_BX.gather(1, merging)
    return *sources, destination_BY, partner_BX.gather(1, merging)


def _dealing_regret(energy_BN: Tensor, source_BX: Tensor, destination_BY: Tensor) -> Tensor:
    """By how much energies rise when all patches are dealt: which of the sources is which does not matter, (B,)."""
    dealt_BX = energy_BN.gather(1, source_BX).sort(dim=1, descending=True).values
    taken_BY = energy_BN.gather(1, destination_BY)
    count = taken_BY.shape[1]
    both = torch.stack((dealt_BX[:, :count], taken_BY), dim=2).flatten(1)
    return order_regret(torch.cat((both, dealt_BX[:, count:]), dim=1))


def _energies(
    metric_BND: Tensor, sizes_BN1: Tensor | None, at: Site, margin: float, energy: str
) -> tuple[Tensor, Tensor]:
    """Cosines between patches (B, N, N) and their energies (B, N)."""
    patches_BND = metric_BND[:, at.prefix :]
    cosine_BNN = patches_BND @ patches_BND.transpose(1, 2)
    margin_here = margin * (1 - at.depth)
    excess_BNN = cosine_BNN - margin_here
    if energy == "elu":
        share_BNN = functional.elu(excess_BNN)
    elif energy == "gaussian":
        width = 1 - margin_here
        share_BNN = (-(((1 - cosine_BNN) / width) ** 2) / 2).exp() / (width * math.sqrt(2 * math.pi))
    else:
        share_BNN = torch.where(excess_BNN >= 0, cosine_BNN, excess_BNN.exp() - 1)
    if sizes_BN1 is None:
        return cosine_BNN, share_BNN.mean(dim=2)
    here_BN = present(sizes_BN1[:, at.prefix :])
    both_BNN, count_B1 = here_BN.unsqueeze(2) & here_BN.unsqueeze(1), here_BN.float().sum(dim=1, keepdim=True)
    energy_BN = torch.where(both_BNN, share_BNN, 0.0).sum(dim=2) / count_B1.clamp_min(1)
    return torch.where(both_BNN, cosine_BNN, NEVER), torch.where(here_BN, energy_BN, NEVER)


def _odd_one(sizes_BN1: Tensor, at: Site) -> tuple[Tensor, Tensor]:
    """How many patches are there, (B, 1), and which source is the odd one of fewer than 2r, bool (B, R)."""
    count_B1 = present(sizes_BN1[:, at.prefix :]).long().sum(dim=1, keepdim=True)
    is_odd_B1 = (count_B1 % 2 == 1) & (count_B1 < 2 * at.r)
    return count_B1, is_odd_B1 & (torch.arange(at.r, device=count_B1.device) == quotient(count_B1, 2))


def _filled(sizes_BN1: Tensor, at: Site, *, everywhere: bool) -> Tensor:
    """Which slots that stay will hold a token, where some hold padding."""
    here_BN = present(sizes_BN1).long()
    count_B, patches = here_BN[:, at.prefix :].sum(dim=1), here_BN.shape[1] - at.prefix
    odd_B = ((count_B % 2 == 1) & (count_B < 2 * at.r)).long()
    destinations = patches // 2 if everywhere else at.r
    staying_B = quotient(count_B + 1, 2) - at.r if everywhere else count_B - 2 * at.r
    return filled_slots(
        (at.prefix, here_BN[:, : at.prefix].sum(dim=1)),
        (patches - at.r - destinations, staying_B),
        (destinations, quotient(count_B, 2) + odd_B),
    )


def _jump(cosine_BNN: Tensor, margin: float) -> Tensor:
    """How far rounding of cosines at the margin, where the paper's energy jumps, can part two energies, (B,)."""
    share_BN = ((cosine_BNN - margin).abs() < _ROUNDING).float().mean(dim=2)
    return 2 * margin * share_BN.amax(dim=1)


def _pairs(cosine_BNN: Tensor, source_BX: Tensor, destination_BY: Tensor) -> Tensor:
    """Cosines of every source with every destination, (B, X, Y)."""
    x, y, count = source_BX.shape[1], destination_BY.shape[1], cosine_BNN.shape[1]
    rows_BXN = cosine_BNN.gather(1, source_BX.unsqueeze(2).expand(-1, x, count))
    return rows_BXN.gather(2, destination_BY.unsqueeze(1).expand(-1, x, y))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of PiToMe.

    Attributes:
        margin: cosine above which patches count as similar, in the first block; it falls to 0 with depth.
        energy: what a cosine adds to the energy of a patch: ELU(cosine - margin), as in the published code; as in the
            paper's text, the cosine itself above the margin and exp(cosine - margin) - 1 below; or the density of a
            Gaussian around 1 with the deviation 1 - margin, as in the published code for BERT.
        metric: what the cosine is taken of: the mean of the attention's keys over heads, or the tokens that are merged,
            as in the published code for CLIP.
        bipartite: blocks in which every patch takes part and the most similar pairs merge: none as in the paper, the
            first-half as in the published code for DeiT, the second-half as in that for MAE, or all, which was measured
            to stay closest to the dense model.
        deal: how the 2r patches of highest energy become sources and destinations: alternately, or in halves, the r of
            highest energy being the sources, as in the published code for BERT; with bipartite=none.
    """

    margin: float = 0.9
    energy: Literal["elu", "paper", "gaussian"] = "elu"
    metric: Literal["keys", "tokens"] = "keys"
    bipartite: Literal["none", "first-half", "second-half", "all"] = "all"
    deal: Literal["alternate", "halves"] = "alternate"


def _variant(*, metric: str, margin: float, energy: str, bipartite: str, deal: str) -> Mapping[str, Any]:
    if deal == "halves" and bipartite != "none":
        raise UsageError("method pitome: deal=halves is of blocks that are not bipartite; add bipartite=none")
    if energy == "gaussian" and margin >= 1:
        raise UsageError(
            f"method pitome: energy=gaussian has the deviation 1 - margin; got margin={margin:g}"
        )
    return {"reads": (compared_by(metric),)}


METHOD = Method(
    name="pitome",
    reference="Tran et al., Accelerating Transformers with Spectrum-Preserving Token Merging, NeurIPS 2024",
    does="merges r patches of high energy, which have many similar ones, with the most similar of r others",
    licence="CC BY-NC 4.0",
    decide=decide,
    regret=regret,
    options=Options,
    variant=_variant,
    padded=True,
    kernels="exporter.kernels.matching:decide_pitome",
)
