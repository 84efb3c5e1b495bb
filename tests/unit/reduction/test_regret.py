"""Regret: zero for a method's own match, and as large as the mistake for any other one."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from exporter.reduction import method
from exporter.reduction.match import Match
from tests.unit.reduction.match_cases import MatchCase, random_cases, site, tied_cases

EAST, NORTH, NEAR_EAST, NEAR_NORTH = [1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8]
CLASS = [0.0, -1.0]


def regret_of(
    name: str, metric_BND: Tensor, match: Match, *, r: int, prefix: int = 1, **options: Any
) -> list[float]:
    chosen = method(name)
    regrets = chosen.regret(metric_BND[:, None], match=match, at=site(r, prefix), **chosen.chosen(options))
    found: list[float] = regrets.tolist()
    return found


@given(name=st.sampled_from(["tome", "pitome"]), case=st.one_of(tied_cases(), random_cases()))
def test_own_match_has_no_regret(name: str, case: MatchCase) -> None:
    metric = case.metric_NC.unsqueeze(0)
    chosen = method(name)
    own = chosen.decide(metric[:, None], at=case.site(), **chosen.chosen({}))

    (regret,) = regret_of(name, metric, own, r=case.r, prefix=case.prefix)

    assert 0 <= regret <= 1e-6


# Positions 1 EAST, 2 NEAR_EAST, 3 NEAR_NORTH, 4 NORTH: sources 2 and 4, destinations 1 and 3, r = 1.
TOME_METRIC = torch.tensor([[CLASS, EAST, NEAR_EAST, NEAR_NORTH, NORTH]])


def tome_match(source: int, stays: int, target: int) -> Match:
    return Match(torch.tensor([[0, stays, 1, 3]]), torch.tensor([[source]]), torch.tensor([[target]]))


@pytest.mark.parametrize(
    ("match", "regret"),
    [
        pytest.param(tome_match(2, 4, 3), 0.0, id="the definition"),
        # 0.96 with 3 against 0.8 with 1
        pytest.param(tome_match(2, 4, 2), 0.16, id="second best partner"),
        # 0.96 of the one that stays against 0.8
        pytest.param(tome_match(4, 2, 3), 0.16, id="second best source"),
    ],
)
def test_tome_regret_is_the_similarity_that_was_given_away(match: Match, regret: float) -> None:
    (found,) = regret_of("tome", TOME_METRIC, match, r=1)

    assert found == pytest.approx(regret, abs=1e-6)


@pytest.mark.parametrize(
    "target", [pytest.param(0, id="the class token"), pytest.param(1, id="a token of the same side")]
)
def test_tome_regrets_a_destination_that_is_none(target: int) -> None:
    (found,) = regret_of("tome", TOME_METRIC, tome_match(2, 4, target), r=1)

    assert found > 0.1


def test_tome_regret_is_per_image() -> None:
    both = Match(*map(torch.cat, zip(tome_match(2, 4, 3)[:3], tome_match(2, 4, 2)[:3], strict=True)))

    found = regret_of("tome", TOME_METRIC.expand(2, -1, -1), both, r=1)

    assert found == pytest.approx([0.0, 0.16], abs=1e-6)


def test_pitome_regrets_a_partner_that_is_not_the_best() -> None:
    # Two near pairs (1, 2) and (3, 4); r = 2 deals 1, 2, 3, 4 in some order, one of each pair on either side.
    angles = torch.tensor([0.0, 0.0, 4.0, 90.0, 97.0]).deg2rad()
    metric = torch.stack((angles.cos(), angles.sin()), dim=1).unsqueeze(0)
    pitome = method("pitome")
    own = pitome.decide(metric[:, None], at=site(2, 1), **pitome.chosen({"bipartite": "none"}))
    swapped = own._replace(target_BR=own.target_BR.flip(1))

    (found,) = regret_of("pitome", metric, swapped, r=2, bipartite="none")

    assert own.target_BR[0, 0] != own.target_BR[0, 1]
    assert found > 0.5


def test_pitome_regrets_merging_an_informative_token() -> None:
    # 1, 2, 3 are one cluster, 4 stands alone; to merge 4 instead of 3 gives energy away.
    angles = torch.tensor([0.0, 0.0, 1.0, 2.0, 120.0]).deg2rad()
    metric = torch.stack((angles.cos(), angles.sin()), dim=1).unsqueeze(0)
    wrong = Match(torch.tensor([[0, 1, 3, 2]]), torch.tensor([[4]]), torch.tensor([[3]]))

    (found,) = regret_of("pitome", metric, wrong, r=1, bipartite="none")

    assert found > 0.1


# Angles of patches 1 to 6; with every patch dealt, 1, 3, 5 (or 2, 4, 6) may be sources and two of three merge.
SPREAD = torch.tensor([0.0, 0.0, 11.0, 21.0, 33.0, 90.0, 140.0]).deg2rad()
SPREAD_METRIC = torch.stack((SPREAD.cos(), SPREAD.sin()), dim=1).unsqueeze(0)


def exchanged(match: Match, kept: int) -> Match:
    """The match whose first source stays in place of a kept token."""
    other = match._replace(kept_BK=match.kept_BK.clone(), source_BR=match.source_BR.clone())
    other.kept_BK[:, kept], other.source_BR[:, 0] = match.source_BR[:, 0], match.kept_BK[:, kept]
    return other


@pytest.mark.parametrize(
    "kept", [pytest.param(1, id="a source that is less similar"), pytest.param(4, id="a destination")]
)
def test_pitome_regrets_another_source_where_all_patches_are_dealt(kept: int) -> None:
    pitome, options = method("pitome"), method("pitome").chosen({"bipartite": "all"})
    own = pitome.decide(SPREAD_METRIC[:, None], at=site(2, 1), **options)

    regret_B = pitome.regret(SPREAD_METRIC[:, None], match=exchanged(own, kept), at=site(2, 1), **options)

    assert float(regret_B) > 1e-2


@pytest.mark.parametrize(
    ("nudge", "least", "most"),
    [pytest.param(3e-7, 0.0, 1e-6, id="rounding"), pytest.param(1e-3, 0.2, 0.3, id="a mistake")],
)
def test_pitome_forgives_only_what_rounding_at_the_margin_of_the_paper_turns(
    nudge: float, least: float, most: float
) -> None:
    # The cosine of 1 and 2 is just above the margin, that of 3 and 4 just below it; the paper's energy jumps there,
    # which is worth 0.9 / 4.
    margin = 0.9
    keys = torch.zeros(1, 1, 5, 6)
    keys[0, 0, 0, 5] = keys[0, 0, 1, 0] = keys[0, 0, 3, 2] = 1
    keys[0, 0, 2, :2] = torch.tensor([margin + nudge, (1 - (margin + nudge) ** 2) ** 0.5])
    keys[0, 0, 4, 2:4] = torch.tensor([margin - nudge, (1 - (margin - nudge) ** 2) ** 0.5])
    pitome, at = method("pitome"), site(1, 1, 0.0)
    options = pitome.chosen({"energy": "paper", "bipartite": "none"})
    swapped = Match(torch.tensor([[0, 1, 2, 4]]), torch.tensor([[3]]), torch.tensor([[3]]))

    own = pitome.decide(keys, at=at, **options)
    regret = float(pitome.regret(keys, match=swapped, at=at, **options))

    assert own.source_BR.tolist() == [[1]]
    assert least <= regret <= most
