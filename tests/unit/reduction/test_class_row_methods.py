"""EViT, DiffRate and PPT, which rank patches by the class token's attention: against their definitions, and regret."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from exporter.reduction import Site, method
from exporter.reduction.match import Match, is_partition
from tests.support.definitions import definition
from tests.unit.reduction.entering_cases import entering, reduced, signals, site
from tests.unit.reduction.match_cases import groups_of

METHODS: list[Any] = [
    pytest.param("evit", {"fused": True}, id="evit"),
    pytest.param("evit", {"fused": False}, id="evit-unfused"),
    pytest.param("diffrate", {}, id="diffrate"),
    pytest.param("ppt", {"threshold": -1.0}, id="ppt-drops"),
    pytest.param("ppt", {"threshold": 1.0}, id="ppt-merges"),
]


@pytest.mark.parametrize(("name", "options"), METHODS)
@settings(max_examples=40)
@given(tied=st.booleans(), data=st.data())
def test_decision_and_numbers_are_those_of_the_definition(
    name: str, options: dict[str, Any], tied: bool, data: st.DataObject
) -> None:
    found = method(name)
    image = replace(data.draw(entering(tied=tied, cap=found.cap)), options=options)
    if not found.pairs:
        own = found.dropped(image.removed, image.block, image.blocks, **options)
        image = replace(image, dropped=own)
    expected = definition(name)(image)
    assume(tied or expected.matching.margin > 1e-4)

    match = found.decide(*signals(image, found), at=site(image), **options)
    tokens_KC, sizes_K = reduced(image, found, match, **options)

    assert is_partition(match)
    assert match.kept_BK[0].tolist() == [group[0] for group in expected.matching.groups]
    torch.testing.assert_close(tokens_KC.double(), expected.tokens_KC, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sizes_K.double(), expected.sizes_K, atol=1e-5, rtol=1e-5)
    assert float(found.regret(*signals(image, found), match=match, at=site(image), **options)) < 1e-6


def test_diffrate_merges_into_the_most_similar_and_drops_the_least_attended() -> None:
    # patches 1..5 at these angles, best attended first; 2 stay, 2 merge, 1 is dropped
    angles = torch.tensor([0.0, 0.0, 90.0, 10.0, 80.0, 95.0]).deg2rad()
    tokens = torch.stack((angles.cos(), angles.sin()), dim=1)[None]
    row = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.04, 0.01]])

    match = method("diffrate").decide(row, tokens, at=Site(r=3, dropped=1, prefix=1, depth=0.5))

    assert match.dropped == 1
    assert groups_of(match) == [[0], [1, 3], [2, 4, 5]]


def test_diffrate_counts_a_source_by_its_cosine_and_keeps_sizes_positive() -> None:
    east, west = [1.0, 0.0], [-1.0, 0.0]
    tokens, row = torch.tensor([[east, east, west]]), torch.tensor([[0.6, 0.3, 0.1]])
    diffrate = method("diffrate")
    match = diffrate.decide(row, tokens, at=Site(r=1, dropped=0, prefix=1, depth=0.5))

    assert diffrate.combine is not None
    merged, sizes = diffrate.combine(
        tokens, torch.tensor([[[1.0], [1.0], [3.0]]]), match, row, tokens, form="gather"
    )

    assert merged.tolist() == [[east, [0.0, 0.0]]]
    assert sizes.flatten().tolist() == pytest.approx([1.0, 1e-6])


def test_ppt_decides_for_every_image_by_itself() -> None:
    even, uneven = [0.2, 0.2, 0.2, 0.2, 0.2], [0.2, 0.5, 0.1, 0.1, 0.1]
    keys = torch.randn(2, 1, 5, 3, generator=torch.Generator().manual_seed(0))
    at = Site(r=2, dropped=0, prefix=1, depth=0.5)

    match = method("ppt").decide(
        torch.tensor([even, uneven]), torch.ones(2, 1, 5, 1), keys, at=at, threshold=0.01
    )

    assert isinstance(match.dropped, Tensor)
    assert match.dropped.tolist() == [[0, 0], [1, 1]]
    assert match.kept_BK[1].tolist() == [0, 1, 2]
    assert groups_of(match, 0) == groups_of(method("tome").decide(keys[:1], at=at))


# Regret --------------------------------------------------------------------------------------------------------------

ROW = torch.tensor([[0.4, 0.3, 0.2, 0.1001, 0.1]])
"""Of a class token and four patches; the last two are nearly equal. Their range is 0.2."""
KEYS = torch.tensor([[[[0.0, -1.0], [1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [1.0, 0.0]]]])
AT = Site(r=1, dropped=1, prefix=1, depth=0.5)


def swapped(match: Match, slot: int) -> Match:
    """The match with the token that leaves and one that stays exchanged."""
    kept_BK, source_BR = match.kept_BK.clone(), match.source_BR.clone()
    kept_BK[0, slot], source_BR[0, 0] = match.source_BR[0, 0], match.kept_BK[0, slot]
    return match._replace(kept_BK=kept_BK, source_BR=source_BR)


def regret_of(name: str, match: Match, **options: Any) -> float:
    found = method(name)
    given = {"class_row": ROW, "keys": KEYS, "mean_keys": KEYS, "values": torch.ones(1, 1, 5, 1)}
    given["tokens"] = KEYS[0]
    return float(found.regret(*(given[each] for each in found.reads), match=match, at=AT, **options))


# drops patch 4; its target among 1, 2, 3 is 1 (cosine 1)
OWN = Match(torch.tensor([[0, 1, 2, 3]]), torch.tensor([[4]]), torch.tensor([[1]]), 1)
PPT_OWN = OWN._replace(dropped=torch.tensor([[1]]))
DROPPERS = [
    pytest.param("evit", OWN, {"fused": False}, id="evit"),
    pytest.param("diffrate", OWN, {}, id="diffrate"),
    pytest.param("ppt", PPT_OWN, {"threshold": 1e-3}, id="ppt"),
]


@pytest.mark.parametrize(("name", "own", "options"), DROPPERS)
def test_near_tie_is_forgiven_and_a_wrong_patch_is_not(
    name: str, own: Match, options: dict[str, Any]
) -> None:
    near, wrong = swapped(own, 3), swapped(own, 2)

    assert regret_of(name, own, **options) < 1e-6
    # 3 leaves in the place of 4, which is 0.0001 of 0.2 less; its best partner is then 4 itself, by 0.8
    near = near._replace(target_BR=torch.tensor([[1]]))
    assert regret_of(name, near, **options) == pytest.approx(0.0005, rel=0.05)
    assert regret_of(name, wrong, **options) > 0.4


@pytest.mark.parametrize(("name", "own", "options"), DROPPERS)
def test_wrong_target_and_a_prefix_that_leaves_are_regretted(
    name: str, own: Match, options: dict[str, Any]
) -> None:
    # cosine 0.8 with patch 3 where 1 has 1
    assert regret_of(name, own._replace(target_BR=torch.tensor([[3]])), **options) == pytest.approx(0.2)
    assert regret_of(name, swapped(own, 0), **options) == float("inf")
    assert regret_of(name, own._replace(target_BR=torch.tensor([[0]])), **options) == float("inf")


def test_fused_token_has_the_last_slot_and_takes_in_the_least_attended() -> None:
    fused = OWN._replace(target_BR=torch.tensor([[3]]), dropped=0)

    assert regret_of("evit", fused, fused=True) < 1e-6
    assert regret_of("evit", swapped(fused, 3), fused=True) < 1e-6  # the sum is the same
    assert regret_of("evit", swapped(fused, 2), fused=True) > 0.4
    assert regret_of("evit", OWN._replace(dropped=0), fused=True) == float("inf")


def test_ppt_regrets_the_other_choice_by_what_the_variance_misses() -> None:
    score = ROW[0, 1:] / ROW[0, 1:].sum()
    variance = float(score.var())

    far, near = (regret_of("ppt", PPT_OWN, threshold=variance * factor) for factor in (2.0, 1.000001))

    assert far == pytest.approx(0.5, rel=1e-3)
    assert 0 < near < 1e-5
    two = PPT_OWN._replace(dropped=torch.tensor([[1]]), source_BR=torch.tensor([[4]]))
    assert regret_of("ppt", two, threshold=variance / 2) < 1e-6


def test_diffrate_regrets_that_a_better_attended_patch_is_dropped() -> None:
    # 3 and 4 leave, and the last one is dropped: by attention 4, by mistake 3; then 2 and 4, which is worse
    diffrate, row = method("diffrate"), torch.tensor([[0.4, 0.3, 0.2, 0.15, 0.1]])
    at = Site(r=2, dropped=1, prefix=1, depth=0.5)
    own = diffrate.decide(row, KEYS[0], at=at)
    flipped = own._replace(source_BR=own.source_BR.flip(1), target_BR=own.target_BR.flip(1))

    assert float(diffrate.regret(row, KEYS[0], match=own, at=at)) < 1e-6
    assert float(diffrate.regret(row, KEYS[0], match=flipped, at=at)) == pytest.approx(0.05 / 0.2, rel=1e-4)
