"""A method that drops tokens, as a user of the package would write it: one file, and nothing else changes.

The patches that the class token attends to least are dropped (EViT's choice, without its fused token). The product
does not have it.

Source: Liang et al., Not All Patches Are What You Need, ICLR 2022, section 3.2.
"""

import torch
from torch import Tensor

from exporter.reduction import Method, Site
from exporter.reduction.match import Match
from exporter.reduction.merge import take
from exporter.reduction.ranking import ascending, order_descending
from exporter.reduction.regret import partner_regret, ranking_regret, without_form, worst
from exporter.reduction.signals import mean_key
from exporter.schedule import all_dropped, all_patches_but_one


def decide(class_row_BN: Tensor, keys_BHND: Tensor, *, at: Site) -> Match:
    """Keep the best attended patches, in order of position (the lower one on ties).

    A dropped patch names the patch that stays whose mean key is most similar to its own.
    """
    order_BP = order_descending(class_row_BN[:, at.prefix :])
    patches = order_BP.shape[1]
    kept_BK = ascending(order_BP[:, : patches - at.r]) + at.prefix
    source_BR = order_BP[:, patches - at.r :] + at.prefix
    prefix_BP = torch.arange(at.prefix, device=kept_BK.device).expand(len(kept_BK), -1)
    target_BR = _similarity(keys_BHND, source_BR, kept_BK).max(dim=2).indices + at.prefix
    return Match(torch.cat((prefix_BP, kept_BK), dim=1), source_BR, target_BR, at.dropped)


def regret(class_row_BN: Tensor, keys_BHND: Tensor, *, match: Match, at: Site) -> Tensor:
    """How much more attention a dropped patch has than one that stays, of the range; or a partner's similarity."""
    prefix_BP, kept_BK = match.kept_BK[:, : at.prefix], match.kept_BK[:, at.prefix :]
    if not bool((prefix_BP == torch.arange(at.prefix)).all() and (kept_BK.diff(dim=1) > 0).all()):
        return without_form(len(kept_BK))
    row_BP = class_row_BN[:, at.prefix :]
    spread_B = (row_BP.amax(dim=1) - row_BP.amin(dim=1)).clamp_min(1e-12)
    similarity_BRK = _similarity(keys_BHND, match.source_BR, kept_BK)
    return worst(
        ranking_regret(row_BP, kept_BK - at.prefix) / spread_B,
        partner_regret(similarity_BRK, match.target_BR - at.prefix),
    )


def _similarity(keys_BHND: Tensor, source_BR: Tensor, kept_BK: Tensor) -> Tensor:
    metric_BND = mean_key(keys_BHND)
    return take(metric_BND, source_BR) @ take(metric_BND, kept_BK).transpose(1, 2)


DROP = METHOD = Method(
    name="drop",
    reference="Liang et al., ICLR 2022, without fusing",
    does="drops the patches that the class token attends to least",
    licence="Apache-2.0",
    decide=decide,
    regret=regret,
    reads=("class_row", "keys"),
    cap=all_patches_but_one,
    dropped=all_dropped,
    proportional=False,
)
