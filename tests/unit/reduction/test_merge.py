"""The shared maths against plain loops over tokens."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from exporter.forms import FUNCTIONS, Forms
from exporter.reduction import sizes as sizes_room
from exporter.reduction.match import Match, is_readable, matched_pairs, read_match, record_match
from exporter.reduction.merge import merge_by_lookup, take
from exporter.reduction.signals import class_row, mean_key, split_heads
from exporter.reduction.sizes import aligned_sizes, initial_sizes, log_size_bias, weighted_mean
from tests.support import matching

BATCH, TOKENS, HEADS, WIDTH = 2, 7, 3, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_sizes(*shape: int) -> Tensor:
    return torch.randint(1, 9, shape, generator=torch.Generator().manual_seed(1)).float()


# Image 0: 6 and 3 both go into 1; image 1: 2 goes into 4, 5 into 6.
MATCH = Match(
    kept_BK=torch.tensor([[0, 1, 2, 4, 5], [0, 6, 4, 1, 3]]),
    source_BR=torch.tensor([[6, 3], [2, 5]]),
    target_BR=torch.tensor([[1, 1], [2, 1]]),
)
GROUPS = [[[0], [1, 6, 3], [2], [4], [5]], [[0], [6, 5], [4, 2], [1], [3]]]


# Metric --------------------------------------------------------------------------------------------------------------


def metric_by_loops(keys_BHND: Tensor) -> list[list[list[float]]]:
    metric = []
    for image in keys_BHND.double().tolist():
        heads = len(image)
        means = [
            [sum(image[head][token][channel] for head in range(heads)) / heads for channel in range(WIDTH)]
            for token in range(TOKENS)
        ]
        metric.append([[value / math.hypot(*mean) for value in mean] for mean in means])
    return metric


def test_metric_is_the_mean_key_of_the_heads_at_unit_length() -> None:
    keys = random(BATCH, HEADS, TOKENS, WIDTH)

    torch.testing.assert_close(mean_key(keys), torch.tensor(metric_by_loops(keys)), atol=1e-6, rtol=0.0)


def test_heads_folded_into_the_batch_are_unfolded() -> None:
    keys = random(BATCH, HEADS, TOKENS, WIDTH)
    tokens = random(BATCH, TOKENS, HEADS * WIDTH)

    assert torch.equal(split_heads(keys.flatten(0, 1), tokens), keys)
    assert torch.equal(split_heads(keys, tokens), keys)


def test_metric_of_zero_keys_is_zero_and_not_nan() -> None:
    assert torch.equal(mean_key(torch.zeros(1, HEADS, TOKENS, WIDTH)), torch.zeros(1, TOKENS, WIDTH))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_metric_of_half_precision_keys_is_computed_in_fp32(dtype: torch.dtype) -> None:
    metric = mean_key(random(BATCH, HEADS, TOKENS, WIDTH).to(dtype))

    assert metric.dtype == torch.float32
    torch.testing.assert_close(metric.norm(dim=-1), torch.ones(BATCH, TOKENS), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("weighed", [False, True])
def test_class_row_is_the_mean_attention_of_the_first_query(weighed: bool) -> None:
    q, k = random(BATCH, HEADS, 5, WIDTH), random(BATCH, HEADS, TOKENS, WIDTH, seed=1)
    sizes = random_sizes(BATCH, TOKENS, 1)

    row = class_row(q, k, sizes if weighed else None, scale=0.5, absent=False)

    for image in range(BATCH):
        counted = sizes[image, :, 0] if weighed else torch.ones(TOKENS)
        expected = attention_by_loops(q[image], k[image], counted, 0.5)[:, 0].mean(dim=0)
        torch.testing.assert_close(row[image], expected, atol=1e-6, rtol=0.0)


# Merge ---------------------------------------------------------------------------------------------------------------


def test_initial_sizes_are_fp32_ones_for_any_dtype() -> None:
    sizes = initial_sizes(random(BATCH, TOKENS, WIDTH).half())

    assert sizes.dtype == torch.float32
    assert torch.equal(sizes, torch.ones(BATCH, TOKENS, 1))


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


# Sizes in attention and pooling --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix_change", "expected"),
    [
        pytest.param(0, [2, 3, 4], id="same"),
        pytest.param(2, [1, 1, 2, 3, 4], id="two more in front"),
        pytest.param(-1, [3, 4], id="first one gone"),
    ],
)
def test_sizes_follow_tokens_added_or_dropped_in_front(prefix_change: int, expected: list[int]) -> None:
    sizes = torch.tensor([2.0, 3.0, 4.0]).reshape(1, 3, 1).expand(BATCH, 3, 1)

    aligned = aligned_sizes(sizes, prefix_change)

    assert aligned.tolist() == [[[size] for size in expected]] * BATCH


def attention_by_loops(q_HMD: Tensor, k_HND: Tensor, sizes_N: Tensor, scale: float) -> Tensor:
    """Return softmax(q k^T * scale + log size) as weights, every original counted on its own."""
    weights_HMN = (q_HMD @ k_HND.transpose(1, 2) * scale).exp() * sizes_N
    return weights_HMN / weights_HMN.sum(dim=-1, keepdim=True)


def test_bias_counts_every_original_of_a_key() -> None:
    q, k = random(BATCH, HEADS, 5, WIDTH), random(BATCH, HEADS, TOKENS, WIDTH, seed=1)
    sizes = random_sizes(BATCH, TOKENS, 1)

    bias = log_size_bias(sizes, q, 0)

    assert bias.shape == (BATCH, 1, 1, TOKENS)
    weights = (q @ k.transpose(2, 3) * 0.5 + bias).softmax(-1)
    for image in range(BATCH):
        expected = attention_by_loops(q[image], k[image], sizes[image, :, 0], 0.5)
        torch.testing.assert_close(weights[image], expected, atol=1e-6, rtol=0.0)


def test_bias_for_heads_folded_into_the_batch_repeats_for_every_head_of_an_image() -> None:
    sizes, q = random_sizes(BATCH, TOKENS, 1), random(BATCH * HEADS, TOKENS, WIDTH)

    bias = log_size_bias(sizes, q, 0)

    assert bias.shape == (BATCH * HEADS, 1, TOKENS)
    for row in range(BATCH * HEADS):
        assert torch.equal(bias[row, 0], sizes[row // HEADS, :, 0].log())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_bias_has_the_dtype_of_the_queries(dtype: torch.dtype) -> None:
    assert log_size_bias(random_sizes(1, 3, 1), random(1, 1, 3, WIDTH).to(dtype), 0).dtype == dtype


def test_bias_of_tokens_without_merges_is_zero() -> None:
    tokens = random(BATCH, TOKENS, WIDTH)

    bias = log_size_bias(initial_sizes(tokens), random(BATCH, HEADS, TOKENS, WIDTH), 0)

    assert not bias.any()


MASKS = pytest.mark.parametrize("mask", list(FUNCTIONS["mask"]))


def attended(
    mask: str, q: Tensor, k: Tensor, v: Tensor, sizes: Tensor, *, absent: bool = False, scale: float = 0.5
) -> Tensor:
    attend = Forms().choose({"mask": mask}).function("mask")
    found: Tensor = attend(q, k, v, sizes, prefix_change=0, absent=absent, scale=scale)
    return found


@MASKS
@pytest.mark.parametrize("heads_in_batch", [False, True])
@pytest.mark.parametrize("width", [4, 8, 13, 64])
def test_every_form_is_proportional_attention(mask: str, width: int, heads_in_batch: bool) -> None:
    q, k, v = (random(BATCH, HEADS, tokens, width, seed=tokens) for tokens in (5, TOKENS, TOKENS))
    sizes = random_sizes(BATCH, TOKENS, 1)
    rows = [each.flatten(0, 1) if heads_in_batch else each for each in (q, k, v)]

    found = attended(mask, rows[0], rows[1], rows[2], sizes).reshape(BATCH, HEADS, 5, width)

    for image in range(BATCH):
        weights = attention_by_loops(q[image], k[image], sizes[image, :, 0], 0.5)
        torch.testing.assert_close(found[image], weights @ v[image], atol=1e-5, rtol=0.0)


@MASKS
@pytest.mark.parametrize("scale", [0.5, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_form_attends_to_an_absent_token(mask: str, dtype: torch.dtype, scale: float) -> None:
    q, k, v = (random(BATCH, HEADS, tokens, WIDTH, seed=tokens).to(dtype) for tokens in (5, TOKENS, TOKENS))
    sizes, there = random_sizes(BATCH, TOKENS, 1), [0, 1, 3, 4, 6]
    sizes[:, [2, 5]] = 0

    found = attended(mask, q, k, v, sizes, absent=True, scale=scale)

    without = attended("bias", q, k[:, :, there], v[:, :, there], sizes[:, there], scale=scale)
    torch.testing.assert_close(found, without, atol=2e-3 if dtype == torch.float16 else 2e-2, rtol=0.0)
    assert torch.isfinite(log_size_bias(sizes, q, 0, absent=True)).all()


@pytest.mark.parametrize(
    ("mask", "bias", "width"),
    [
        pytest.param("bias", (BATCH, 1, 1, TOKENS), 4, id="one row"),
        pytest.param("expanded", (BATCH, 1, 5, TOKENS), 4, id="a row for every query"),
        pytest.param("folded", None, 8, id="no mask, heads padded to 8"),
    ],
)
def test_forms_differ_in_what_attention_is_given(
    mask: str, bias: tuple[int, ...] | None, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **_: Any) -> Tensor:
        given.append(
            (None if attn_mask is None else tuple(attn_mask.shape), q.shape[-1], k.shape[-1], v.shape[-1])
        )
        return v

    monkeypatch.setattr(sizes_room, "_attend", attend)

    q, k, v = (random(BATCH, HEADS, tokens, WIDTH) for tokens in (5, TOKENS, TOKENS))

    attended(mask, q, k, v, random_sizes(BATCH, TOKENS, 1))

    assert given == [(bias, width, width, width)]


def mean_by_loops(values_NC: Tensor, sizes: list[float]) -> list[float]:
    return [
        sum(size * value for size, value in zip(sizes, channel, strict=True)) / sum(sizes)
        for channel in values_NC.T.double().tolist()
    ]


@pytest.mark.parametrize(
    "prefix_change", [pytest.param(0, id="all tokens"), pytest.param(-2, id="patches only")]
)
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("token_axis", [1, 0])
def test_weighted_mean_counts_every_original_once(token_axis: int, keepdim: bool, prefix_change: int) -> None:
    sizes = random_sizes(BATCH, TOKENS, 1)
    values_BNC = random(BATCH, TOKENS + prefix_change, WIDTH)
    values = values_BNC if token_axis == 1 else values_BNC.transpose(0, 1)

    pooled = weighted_mean(values, sizes, prefix_change, token_axis, keepdim)

    assert pooled.shape == values.mean(token_axis, keepdim=keepdim).shape
    expected = [
        mean_by_loops(values_BNC[image], sizes[image, -prefix_change:, 0].tolist()) for image in range(BATCH)
    ]
    torch.testing.assert_close(pooled.reshape(BATCH, WIDTH), torch.tensor(expected), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weighted_mean_keeps_half_precision(dtype: torch.dtype) -> None:
    values = random(BATCH, TOKENS, WIDTH).to(dtype)

    assert weighted_mean(values, random_sizes(BATCH, TOKENS, 1), 0, 1, False).dtype == dtype
