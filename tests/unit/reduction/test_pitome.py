"""PiToMe's matching against its definition in plain Python."""

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from exporter.errors import UsageError
from exporter.reduction import method
from exporter.reduction.match import Match
from exporter.reduction.method import Site
from tests.support.matching import match_pitome, match_pitome_everywhere
from tests.unit.reduction.match_cases import MatchCase, groups_of, keys_of, random_cases, site, tied_cases

# Below every cosine: ELU is the identity there, and energies of the exact unit vectors are exact as well.
EXACT_MARGIN = -1.0


def matched(case: MatchCase, *, depth: float, **options: Any) -> Match:
    return decided(case.keys_BHND, case.site(depth), **options)


def decided(compared: Tensor, at: Site, **options: Any) -> Match:
    """Decide as the paper does, where the options do not say otherwise."""
    pitome = method("pitome")
    return pitome.decide(compared, at=at, **pitome.chosen({"bipartite": "none", **options}))


@given(case=tied_cases())
def test_groups_are_those_of_the_definition_with_exact_ties(case: MatchCase) -> None:
    expected = match_pitome(case.similarity, r=case.r, prefix=case.prefix, margin=EXACT_MARGIN)

    assert groups_of(matched(case, depth=0.0, margin=EXACT_MARGIN)) == expected.groups


@given(case=random_cases(), block=st.integers(0, 11), margin=st.sampled_from([0.75, 0.9, 0.95]))
def test_groups_are_those_of_the_definition(case: MatchCase, block: int, margin: float) -> None:
    falling = margin * (1 - block / 12)
    expected = match_pitome(case.similarity, r=case.r, prefix=case.prefix, margin=falling)
    assume(expected.margin > 1e-5)

    assert groups_of(matched(case, depth=block / 12, margin=margin)) == expected.groups


@given(case=tied_cases())
def test_bipartite_block_deals_every_patch_and_merges_the_best_pairs_with_exact_ties(case: MatchCase) -> None:
    expected = match_pitome_everywhere(case.similarity, r=case.r, prefix=case.prefix, margin=EXACT_MARGIN)

    match = matched(case, depth=0.0, margin=EXACT_MARGIN, bipartite="all")

    assert [sorted(group) for group in groups_of(match)] == [sorted(group) for group in expected.groups]


@given(case=random_cases(), block=st.integers(0, 11))
def test_form_for_texts_merges_the_most_energetic_half_into_the_other(case: MatchCase, block: int) -> None:
    options: dict[str, Any] = {"margin": 0.5, "energy": "gaussian", "deal": "halves"}
    expected = match_pitome(
        case.similarity, r=case.r, prefix=case.prefix, **{**options, "margin": 0.5 * (1 - block / 12)}
    )
    assume(expected.margin > 1e-5)

    match = matched(case, depth=block / 12, **options)

    assert groups_of(match) == expected.groups
    regret = method("pitome").regret(
        case.keys_BHND, match=match, at=case.site(block / 12), bipartite="none", **options
    )
    assert float(regret) <= 1e-6


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param({"deal": "halves"}, "deal=halves is of blocks that are not bipartite", id="halves"),
        pytest.param({"energy": "gaussian", "margin": 1.0}, "got margin=1", id="no-deviation"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        method("pitome").with_options(options)


@given(
    case=random_cases(),
    energy=st.sampled_from(["elu", "paper"]),
    bipartite=st.sampled_from(["none", "first-half", "second-half", "all"]),
    block=st.integers(0, 11),
)
def test_options_are_those_of_the_definition(
    case: MatchCase, energy: str, bipartite: str, block: int
) -> None:
    half = "first-half" if block < 6 else "second-half"
    define = match_pitome_everywhere if bipartite in ("all", half) else match_pitome
    margin = 0.9 * (1 - block / 12)
    expected = define(case.similarity, r=case.r, prefix=case.prefix, margin=margin, energy=energy)
    nearest = min(abs(cosine - margin) for row in case.similarity for cosine in row)
    assume(expected.margin > 1e-5 and nearest > 1e-5)
    options: dict[str, Any] = {"margin": 0.9, "energy": energy, "bipartite": bipartite}

    match = matched(case, depth=block / 12, **options)

    assert [sorted(group) for group in groups_of(match)] == [sorted(group) for group in expected.groups]
    regret = method("pitome").regret(
        case.keys_BHND, match=match, at=case.site(block / 12), metric="keys", **options
    )
    assert float(regret) <= 1e-6


@given(case=random_cases())
def test_tokens_as_metric_are_compared_like_the_keys_of_one_head(case: MatchCase) -> None:
    by_tokens = decided(case.metric_NC[None], case.site())
    by_keys = decided(case.keys_BHND, case.site())

    assert groups_of(by_tokens) == groups_of(by_keys)


def test_metric_decides_what_is_read() -> None:
    pitome = method("pitome")

    assert pitome.with_options({}).reads == ("mean_keys",)
    assert pitome.with_options({"metric": "tokens"}).reads == ("tokens",)


@given(tokens=st.integers(2, 64), prefix=st.integers(0, 5), data=st.data())
def test_equal_tokens_are_dealt_alternately_by_position(
    tokens: int, prefix: int, data: st.DataObject
) -> None:
    total = tokens + prefix
    r = data.draw(st.integers(1, tokens // 2))
    keys = torch.full((1, 1, total, 64), 64**-0.5)

    kept, sources, targets, *_ = decided(keys, site(r, prefix))

    dealt, protected = range(prefix, prefix + 2 * r), range(prefix + 2 * r, total)
    assert sources.tolist() == [list(dealt[0::2])]
    assert kept.tolist() == [[*range(prefix), *protected, *dealt[1::2]]]
    assert kept[0, targets[0]].tolist() == [dealt[1]] * r


def test_prefix_tokens_have_no_part_in_the_energy() -> None:
    patches = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
    like_patch_0, unlike = patches[:1], -patches[:1]

    found = [
        groups_of(decided(keys_of(torch.cat((prefix, patches))), site(3, 1)))
        for prefix in (like_patch_0, unlike)
    ]

    assert found[0] == found[1]


@pytest.mark.parametrize("margin", [0.0, 0.9])
def test_margin_decides_who_is_in_a_large_cluster(margin: float) -> None:
    # Two pairs of near tokens and a loose cluster of three: counted from a cosine of 0 the loose three have the
    # most neighbours, counted from 0.9 only the near pairs have any.
    angles = torch.tensor([0.0, 1.0, 90.0, 91.0, 200.0, 230.0, 260.0]).deg2rad()
    metric = torch.stack((angles.cos(), angles.sin()), dim=1)

    found = decided(keys_of(metric), site(1, 0, 0.0), margin=margin)

    expected = match_pitome((metric.double() @ metric.T.double()).tolist(), r=1, prefix=0, margin=margin)
    assert groups_of(found) == expected.groups
