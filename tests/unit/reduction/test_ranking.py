"""Deterministic selection against Python's stable sort, with many ties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exporter.reduction.ranking import (
    argsort_distinct,
    ascending,
    order_descending,
    partition_top,
    ranks_descending,
)

# Few values, hence many ties; 0.0 and -0.0 are equal.
TIED_SCORES = st.lists(
    st.sampled_from([-float("inf"), -1.0, -0.0, 0.0, 0.25, 1.0, float("inf")]), min_size=1, max_size=24
)
ANY_SCORES = st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=24)


def stable_descending(scores: list[float]) -> list[int]:
    """Return positions from the highest score to the lowest, the lower position first on ties."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])


@given(scores=st.one_of(TIED_SCORES, ANY_SCORES))
def test_ranks_are_places_in_a_stable_descending_sort(scores: list[float]) -> None:
    (ranks,) = ranks_descending(torch.tensor([scores])).tolist()

    assert sorted(range(len(scores)), key=ranks.__getitem__) == stable_descending(scores)
    assert sorted(ranks) == list(range(len(scores)))


@given(scores=st.one_of(TIED_SCORES, ANY_SCORES))
def test_order_is_a_stable_descending_sort(scores: list[float]) -> None:
    assert order_descending(torch.tensor([scores])).tolist() == [stable_descending(scores)]


@given(numbers=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=40))
def test_integers_of_any_size_ascend(numbers: list[int]) -> None:
    assert ascending(torch.tensor([numbers])).tolist() == [sorted(numbers)]


def test_ranks_of_equal_scores_are_their_positions() -> None:
    assert ranks_descending(torch.ones(1, 197)).tolist() == [list(range(197))]


def test_ranks_of_every_row_are_its_own() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [2.0, 2.0, 5.0]])

    assert ranks_descending(scores).tolist() == [[2, 0, 1], [1, 2, 0]]


@given(keys=st.lists(st.integers(-1000, 1000), min_size=1, max_size=40, unique=True))
def test_argsort_of_distinct_integers_is_ascending(keys: list[int]) -> None:
    (order,) = argsort_distinct(torch.tensor([keys])).tolist()

    assert order == sorted(range(len(keys)), key=keys.__getitem__)


@given(scores=st.one_of(TIED_SCORES, ANY_SCORES), data=st.data())
def test_partition_gives_the_rest_in_order_of_position_and_the_highest_in_order_of_score(
    scores: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(scores)))

    rest, top = partition_top(torch.tensor([scores]), count)

    ranked = stable_descending(scores)
    assert top.tolist() == [ranked[:count]]
    assert rest.tolist() == [sorted(ranked[count:])]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_indices_are_int64_for_any_score(dtype: torch.dtype) -> None:
    rest, top = partition_top(torch.tensor([[0.5, 1.0, 0.5]], dtype=dtype), 1)

    assert rest.dtype == top.dtype == torch.int64
    assert (rest.tolist(), top.tolist()) == ([[0, 2]], [[1]])
