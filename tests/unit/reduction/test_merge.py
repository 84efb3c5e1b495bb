"""The merge, and the record of a match, against plain loops over tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor

from exporter.forms import FUNCTIONS, Forms
from exporter.reduction.match import Match, is_readable, matched_pairs, read_match, record_match
from exporter.reduction.merge import merge_by_lookup, take
from exporter.reduction.sizes import initial_sizes
from tests.support import matching
from tests.unit.reduction.random_tokens import BATCH, TOKENS, WIDTH, random, random_sizes

# Image 0: 6 and 3 both go into 1; image 1: 2 goes into 4, 5 into 6.
MATCH = Match(
    kept_BK=torch.tensor([[0, 1, 2, 4, 5], [0, 6, 4, 1, 3]]),
    source_BR=torch.tensor([[6, 3], [2, 5]]),
    target_BR=torch.tensor([[1, 1], [2, 1]]),
)
GROUPS = [[[0], [1, 6, 3], [2], [4], [5]], [[0], [6, 5], [4, 2], [1], [3]]]


SELECTIONS = pytest.mark.parametrize("selection", list(FUNCTIONS["selection"]))


def merge(
    tokens: Tensor, sizes: Tensor, match: Match, selection: str = "gather", **options: Any
) -> tuple[Tensor, Tensor]:
    merged, merged_sizes = (
        Forms().choose({"selection": selection}).function("selection")(tokens, sizes, match, **options)
    )
    return merged, merged_sizes


def in_groups(match: Match) -> list[list[list[int]]]:
    """By image and place in the result: the tokens whose mean it is, by the definition."""
    static = match.dropped if isinstance(match.dropped, int) else 0
    gone = (
        match.dropped
        if isinstance(match.dropped, Tensor)
        else torch.tensor([[static > 1, static > 0]] * BATCH)
    )
    groups = [[[token] for token in kept] for kept in match.kept_BK.tolist()]
    for image, place in (gone == 0).nonzero().tolist():
        groups[image][match.target_BR[image, place]].append(int(match.source_BR[image, place]))
    return groups


DROPPED: list[Any] = [
    pytest.param(0, id="all merge"),
    pytest.param(1, id="the last is dropped"),
    pytest.param(2, id="all are dropped"),
    pytest.param(torch.tensor([[1, 0], [0, 1]]), id="another one per image"),
]


@SELECTIONS
@pytest.mark.parametrize("dropped", DROPPED)
def test_merge_is_the_size_weighted_mean_of_every_group(selection: str, dropped: int | Tensor) -> None:
    tokens, sizes = random(BATCH, TOKENS, WIDTH), random_sizes(BATCH, TOKENS, 1)
    match = MATCH._replace(dropped=dropped)

    merged, merged_sizes = merge(tokens, sizes, match, selection)

    for image, groups in enumerate(in_groups(match)):
        expected, expected_sizes = matching.merge(tokens[image], sizes[image, :, 0], groups)
        torch.testing.assert_close(merged[image], expected, atol=1e-6, rtol=0.0)
        assert torch.equal(merged_sizes[image, :, 0], expected_sizes)


def test_groups_of_the_definition_are_those_of_the_example() -> None:
    assert in_groups(MATCH) == GROUPS


@SELECTIONS
def test_absent_tokens_count_for_nothing_and_a_group_of_them_stays_absent(selection: str) -> None:
    tokens, sizes = random(BATCH, TOKENS, WIDTH), random_sizes(BATCH, TOKENS, 1)
    sizes[:, 6] = 0  # image 0: merges into 1; image 1: takes in 5
    sizes[1, 5] = 0

    merged, merged_sizes = merge(tokens, sizes, MATCH, selection, absent=True)

    without_6 = (tokens[0, 1] * sizes[0, 1] + tokens[0, 3] * sizes[0, 3]) / (sizes[0, 1] + sizes[0, 3])
    torch.testing.assert_close(merged[0, 1], without_6, atol=1e-6, rtol=0.0)
    assert merged_sizes[1, 1] == 0
    assert not merged[1, 1].any()


@SELECTIONS
def test_tokens_that_nothing_merges_into_come_out_bit_by_bit(selection: str) -> None:
    tokens, sizes = random(BATCH, TOKENS, WIDTH), random_sizes(BATCH, TOKENS, 1)

    merged, _ = merge(tokens, sizes, MATCH, selection)

    for image, groups in enumerate(GROUPS):
        alone = [(slot, group[0]) for slot, group in enumerate(groups) if len(group) == 1]
        for slot, token in alone:
            assert torch.equal(merged[image, slot], tokens[image, token])


def test_two_merges_after_each_other_weigh_every_original_the_same() -> None:
    tokens = random(1, 4, WIDTH)
    first = Match(torch.tensor([[0, 2, 3]]), torch.tensor([[1]]), torch.tensor([[0]]))
    second = Match(torch.tensor([[1, 2]]), torch.tensor([[0]]), torch.tensor([[0]]))

    merged, sizes = merge_by_lookup(*merge_by_lookup(tokens, initial_sizes(tokens), first), second)

    torch.testing.assert_close(merged[0, 0], tokens[0, :3].mean(0), atol=1e-6, rtol=0.0)
    assert sizes.flatten().tolist() == [3, 1]


@SELECTIONS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_merge_gives_tokens_in_their_dtype_and_sizes_in_fp32(dtype: torch.dtype, selection: str) -> None:
    tokens, sizes = random(BATCH, TOKENS, WIDTH).to(dtype), random_sizes(BATCH, TOKENS, 1)

    merged, merged_sizes = merge(tokens, sizes, MATCH, selection)

    in_fp32, _ = merge(tokens.float(), sizes, MATCH, selection)
    assert merged.dtype == dtype
    assert merged_sizes.dtype == torch.float32
    assert torch.equal(merged, in_fp32.to(dtype))


def test_large_half_precision_tokens_do_not_overflow_when_weighted() -> None:
    tokens = torch.full((1, 3, 1), 60000.0, dtype=torch.float16)
    match = Match(torch.tensor([[0, 1]]), torch.tensor([[2]]), torch.tensor([[1]]))

    merged, _ = merge_by_lookup(tokens, torch.full((1, 3, 1), 50.0), match)

    torch.testing.assert_close(merged, tokens[:, :2], atol=0.0, rtol=1e-3)


def test_take_picks_rows_of_every_image() -> None:
    rows, index = random(BATCH, TOKENS, WIDTH), torch.tensor([[6, 0, 0], [1, 5, 2]])

    taken = take(rows, index)

    for image in range(BATCH):
        for place in range(3):
            assert torch.equal(taken[image, place], rows[image, index[image, place]])


def test_matched_pairs_are_positions_before_the_merge() -> None:
    assert matched_pairs(MATCH).tolist() == [[[6, 1], [3, 1]], [[2, 4], [5, 6]]]


ABSENT = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 1, 1]])


@pytest.mark.parametrize("dropped", DROPPED)
@pytest.mark.parametrize("absent", [pytest.param(None, id="full"), pytest.param(ABSENT, id="empty slots")])
def test_record_holds_a_whole_match(dropped: int | Tensor, absent: Tensor | None) -> None:
    match = MATCH._replace(dropped=dropped, absent=absent)
    record = record_match(match)

    static = dropped if isinstance(dropped, int) else 0
    found = read_match(record, 2, static, absent=absent is not None)

    assert (record.shape, record.dtype) == ((BATCH, 5 + 2 + 2), torch.int64)
    assert is_readable(record, 2, absent=absent is not None)
    for part, expected in zip(found[:4], match[:4], strict=True):
        assert torch.equal(torch.as_tensor(part), torch.as_tensor(expected))
    assert (found.absent is None) == (absent is None)
    assert found.absent is None or torch.equal(found.absent, ABSENT)


@pytest.mark.parametrize(("place", "value"), [(0, 7), (6, -1), (8, 10)])
def test_record_with_an_entry_out_of_range_is_not_readable(place: int, value: int) -> None:
    record = record_match(MATCH)
    record[1, place] = value

    assert is_readable(record, 2, absent=True) == (place == 0)
    assert not is_readable(record, 2, absent=False)
