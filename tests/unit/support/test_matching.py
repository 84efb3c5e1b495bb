"""The definitions of ToMe and PiToMe on examples small enough to work out by hand."""

import math

import pytest
import torch

from tests.support.definitions import Entering, definition
from tests.support.matching import Matching, Method, match_pitome, match_tome, merge

# Unit vectors whose cosines are exact fractions; the class token in front must not matter.
CLASS = [0.0, -1.0]
EAST = [1.0, 0.0]
NORTH = [0.0, 1.0]
NEAR_EAST = [0.8, 0.6]  # cosine 0.8 with EAST, 0.6 with NORTH
NEAR_NORTH = [0.6, 0.8]  # cosine 0.6 with EAST, 0.8 with NORTH, 0.96 with NEAR_EAST


def matching_of(
    rows: list[list[float]], *, method: Method, merged: int, prefix: int, block: int = 0, blocks: int = 1
) -> Matching:
    tokens_NC = torch.tensor(rows, dtype=torch.float64)
    ones_N = torch.ones(len(rows))
    entering = Entering(
        tokens_NC=tokens_NC,
        sizes_N=ones_N,
        keys_HND=tokens_NC[None],
        values_HND=tokens_NC[None],
        row_N=ones_N,
        removed=merged,
        dropped=0,
        prefix=prefix,
        block=block,
        blocks=blocks,
        options={"bipartite": "none"},
    )
    return definition(method)(entering).matching


@pytest.mark.parametrize(
    ("tokens", "merged", "prefix", "groups", "margin"),
    [
        # A = {2: NEAR_EAST, 4: NORTH}, B = {1: EAST, 3: NEAR_NORTH}.
        # 2 scores 0.8 with 1 and 0.96 with 3; 4 scores 0 with 1 and 0.8 with 3: the best pair is (2, 3).
        pytest.param(
            [CLASS, EAST, NEAR_EAST, NEAR_NORTH, NORTH], 1, 1, [[0], [4], [1], [3, 2]], 0.16, id="best pair"
        ),
        pytest.param(
            [CLASS, EAST, NEAR_EAST, NEAR_NORTH, NORTH],
            2,
            1,
            [[0], [1], [3, 2, 4]],
            0.16,
            id="one destination",
        ),
        # Two prefix tokens: A = {2, 4}, B = {3, 5}. With parity over patches only, 3 and 5 would be the sources.
        pytest.param(
            [CLASS, CLASS, EAST, EAST, NORTH, NEAR_NORTH],
            *(1, 2, [[0], [1], [4], [3, 2], [5]], 0.2),
            id="parity over all positions",
        ),
        pytest.param([EAST, NEAR_EAST, NORTH], 1, 0, [[2], [1, 0]], 0.2, id="no prefix: from position zero"),
        pytest.param(
            [CLASS, EAST, EAST, EAST, NORTH], 1, 1, [[0], [4], [1, 2], [3]], 0, id="lowest destination"
        ),
        pytest.param([CLASS, EAST, EAST, NORTH, EAST], 1, 1, [[0], [4], [1, 2], [3]], 0, id="lowest source"),
        # By dot product the long NORTH would attract token 2; by cosine EAST does.
        pytest.param(
            [CLASS, EAST, NEAR_EAST, [0.0, 9.0], NORTH], 2, 1, [[0], [1, 2], [3, 4]], 0.2, id="length ignored"
        ),
    ],
)
def test_tome_merges_the_best_even_tokens_into_odd_ones(
    tokens: list[list[float]], merged: int, prefix: int, groups: list[list[int]], margin: float
) -> None:
    matching = matching_of(tokens, method="tome", merged=merged, prefix=prefix)

    assert matching.groups == groups
    assert matching.margin == pytest.approx(margin)


@pytest.mark.parametrize(
    ("tokens", "prefix", "left"),
    [
        pytest.param(5, 1, 3, id="even patches"),
        pytest.param(6, 1, 4, id="odd patches"),
        pytest.param(6, 0, 3, id="no prefix"),
        pytest.param(6, 3, 5, id="three prefix tokens"),
        pytest.param(2, 1, 2, id="one patch"),
    ],
)
@pytest.mark.parametrize("method", ["tome", "pitome"])
def test_merged_count_is_capped_at_half_of_the_unprotected(
    method: Method, tokens: int, prefix: int, left: int
) -> None:
    rows = torch.randn(tokens, 4, generator=torch.Generator().manual_seed(0)).tolist()

    matching = matching_of(rows, method=method, merged=99, prefix=prefix)

    assert len(matching.groups) == left


@pytest.mark.parametrize(
    ("merged", "groups"),
    [
        pytest.param(1, [[0], [2], [3], [1, 4]], id="A = [4], B = [1]; 2 and 3 are protected"),
        pytest.param(
            2, [[0], [1, 2], [3, 4]], id="A = [4, 2], B = [1, 3]: 4 goes to 3 (0.8 beats 0.6), 2 to 1"
        ),
    ],
)
def test_pitome_energy_order_decides_who_may_merge_alternately(merged: int, groups: list[list[int]]) -> None:
    # Patches 1 EAST, 2 EAST, 3 NORTH, 4 NEAR_NORTH at margin 0.9, e = elu(similarity - 0.9):
    # 1 and 2: 0.1 + 0.1 + (exp(-0.9) - 1) + (exp(-0.3) - 1) = -0.653
    # 3: 2 (exp(-0.9) - 1) + 0.1 + (exp(-0.1) - 1)           = -1.182
    # 4: 2 (exp(-0.3) - 1) + (exp(-0.1) - 1) + 0.1           = -0.514
    # Order 4, 1, 2, 3 (1 before 2: a tie).
    tokens = [CLASS, EAST, EAST, NORTH, NEAR_NORTH]

    assert matching_of(tokens, method="pitome", merged=merged, prefix=1).groups == groups


def test_pitome_keeps_destinations_in_the_order_of_energy() -> None:
    similarity = [
        [1.0, 0.0, 0.79, 0.59],
        [0.0, 1.0, 0.61, 0.81],
        [0.79, 0.61, 1.0, 0.96],
        [0.59, 0.81, 0.96, 1.0],
    ]

    matching = match_pitome(similarity, r=2, prefix=0, margin=0.9)

    # expm1(x) is elu(x) below zero
    energy_2 = 0.1 + 0.06 + math.expm1(-0.11) + math.expm1(-0.29)
    energy_3 = 0.1 + 0.06 + math.expm1(-0.31) + math.expm1(-0.09)
    energy_0 = 0.1 + math.expm1(-0.9) + math.expm1(-0.11) + math.expm1(-0.31)
    energy_1 = 0.1 + math.expm1(-0.9) + math.expm1(-0.29) + math.expm1(-0.09)
    assert energy_3 > energy_2 > energy_1 > energy_0
    # A = [3, 1], B = [2, 0]: 3 goes to 2, and so does 1 (0.61 beats 0)
    assert matching.groups == [[2, 3, 1], [0]]


def test_pitome_margin_falls_linearly_over_depth() -> None:
    # 0 and 1 are the same vector, at right angles to 2, 3, 4, whose cosines with each other are 0.6.
    # Energy of a twin minus that of one of the three: e(1) + e(0) - 2 e(0.6), with e(s) = elu(s - margin):
    # margin 0.9:   0.1 - 0.593 + 0.518 = +0.025, the twins merge;
    # margin 0.225: 0.775 - 0.201 - 0.75 = -0.176, two of the three merge.
    tokens = torch.zeros(5, 4, dtype=torch.float64)
    tokens[:2, 0] = 1
    tokens[2:, 1:] = torch.linalg.cholesky(0.6 + 0.4 * torch.eye(3, dtype=torch.float64))

    first = matching_of(tokens.tolist(), method="pitome", merged=1, prefix=0, block=0, blocks=4)
    last = matching_of(tokens.tolist(), method="pitome", merged=1, prefix=0, block=3, blocks=4)

    assert first.groups == [[2], [3], [4], [1, 0]]
    assert last.groups[:2] == [[0], [1]]


def test_ties_in_tome_scores_are_reported_as_no_margin() -> None:
    matching = match_tome([[1.0, 0.5, 0.5, 0.5]] * 4, r=1, prefix=0)

    assert matching.groups == [[2], [1, 0], [3]]
    assert matching.margin == 0


def test_merge_takes_the_mean_weighted_by_size() -> None:
    x_NC = torch.tensor([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]])
    size_N = torch.tensor([1.0, 3.0, 1.0])

    x_MC, size_M = merge(x_NC, size_N, [[0], [2, 1]])

    # (6 * 1 + 2 * 3) / 4 = 3
    assert x_MC.tolist() == [[1.0, 10.0], [3.0, 30.0]]
    assert size_M.tolist() == [1.0, 4.0]
