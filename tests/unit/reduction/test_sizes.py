"""What methods read of attention, and sizes in attention and in means, against plain loops over tokens."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from exporter.forms import FUNCTIONS, Forms
from exporter.reduction import sizes as sizes_room
from exporter.reduction.signals import class_row, mean_key, split_heads
from exporter.reduction.sizes import aligned_sizes, initial_sizes, log_size_bias, weighted_mean
from tests.unit.reduction.random_tokens import BATCH, HEADS, TOKENS, WIDTH, random, random_sizes


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


def test_initial_sizes_are_fp32_ones_for_any_dtype() -> None:
    sizes = initial_sizes(random(BATCH, TOKENS, WIDTH).half())

    assert sizes.dtype == torch.float32
    assert torch.equal(sizes, torch.ones(BATCH, TOKENS, 1))


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
