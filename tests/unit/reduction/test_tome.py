"""ToMe's matching against its definition in plain Python."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from exporter.reduction import method
from exporter.reduction.match import Match
from exporter.reduction.methods.tome import decide
from tests.support.compiled import ordered
from tests.support.matching import match_tome
from tests.unit.reduction.match_cases import MatchCase, groups_of, keys_of, random_cases, site, tied_cases


def matched(case: MatchCase) -> Match:
    return decide(case.keys_BHND, at=case.site())


@given(case=tied_cases())
def test_groups_are_those_of_the_definition_with_exact_ties(case: MatchCase) -> None:
    expected = match_tome(case.similarity, r=case.r, prefix=case.prefix)

    assert ordered(groups_of(matched(case))) == expected.groups


@given(case=random_cases())
def test_groups_are_those_of_the_definition(case: MatchCase) -> None:
    expected = match_tome(case.similarity, r=case.r, prefix=case.prefix)
    assume(expected.margin > 1e-5)

    assert ordered(groups_of(matched(case))) == expected.groups


@given(case=st.one_of(tied_cases(), random_cases()), depth=st.sampled_from([0.4, 0.5]), data=st.data())
def test_size_penalty_lowers_the_similarity_of_large_pairs_in_late_blocks(
    case: MatchCase, depth: float, data: st.DataObject
) -> None:
    count = len(case.metric_NC)
    sizes = data.draw(st.lists(st.sampled_from([1.0, 2.0, 7.0]), min_size=count, max_size=count))
    penalty = 0.1 if depth >= 0.5 else 0.0
    scores = [
        [cosine - penalty * math.log(sizes[i] + sizes[j]) for j, cosine in enumerate(row)]
        for i, row in enumerate(case.similarity)
    ]
    expected = match_tome(scores, r=case.r, prefix=case.prefix)
    assume(expected.margin > 1e-5)
    signals, at = (case.keys_BHND, torch.tensor(sizes)[None, :, None]), case.site(depth)

    match = decide(*signals, at=at, size_penalty=0.1)

    assert ordered(groups_of(match)) == expected.groups
    assert float(method("tome").regret(*signals, match=match, at=at, size_penalty=0.1)) <= 1e-6


@pytest.mark.parametrize(
    ("options", "reads"),
    [
        pytest.param({}, ("mean_keys",), id="ToMe"),
        pytest.param({"metric": "tokens"}, ("tokens",), id="tokens"),
        pytest.param({"size_penalty": 0.1}, ("mean_keys", "sizes"), id="sizes"),
    ],
)
def test_options_decide_what_is_read(options: dict[str, Any], reads: tuple[str, ...]) -> None:
    assert method("tome").with_options(options).reads == reads


@given(tokens=st.integers(2, 64), prefix=st.integers(0, 5), data=st.data())
def test_equal_tokens_merge_from_the_lowest_even_into_the_lowest_odd(
    tokens: int, prefix: int, data: st.DataObject
) -> None:
    total = tokens + prefix
    r = data.draw(st.integers(1, tokens // 2))
    keys = torch.full((1, 1, total, 64), 64**-0.5)

    kept, sources, targets, *_ = decide(keys, at=site(r, prefix))

    even = [token for token in range(prefix, total) if token % 2 == 0]
    odd = [token for token in range(prefix, total) if token % 2 == 1]
    assert sources.tolist() == [even[:r]]
    assert kept.tolist() == [[*range(prefix), *even[r:], *odd]]
    assert kept[0, targets[0]].tolist() == [odd[0]] * r


def test_duplicated_tokens_merge_with_their_duplicate_first() -> None:
    # 1 and 4 are equal, 2 and 3 are equal; of two equally good sources, 2 is the lower.
    east, north, south_west = [1.0, 0.0], [0.0, 1.0], [-0.6, -0.8]
    keys = keys_of(torch.tensor([south_west, east, north, north, east, south_west]))

    match_of_one = decide(keys, at=site(1, 1))
    match_of_two = decide(keys, at=site(2, 1))

    assert groups_of(match_of_one) == [[0], [4], [1], [3, 2], [5]]
    assert groups_of(match_of_two) == [[0], [1, 4], [3, 2], [5]]


@pytest.mark.parametrize("depth", [0.0, 0.5])
def test_depth_changes_nothing(depth: float) -> None:
    keys = torch.randn(1, 2, 9, 4)

    found = decide(keys, at=site(2, 1, depth))

    assert groups_of(found) == groups_of(decide(keys, at=site(2, 1, 0.9)))
