"""The attention kernel, interpreted on the CPU, against attention over every original token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from exporter.graph.fp8 import FP8
from exporter.kernels import attention
from exporter.reduction.sizes import attend_with_bias

TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def packed(tokens: int, width: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of two images and three heads, as views of a packed projection with a gap."""
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(2, tokens, 9 * width + 5, generator=generator).to(dtype)[..., : 9 * width]
    queries, keys, values = projection.unflatten(-1, (3, 3, width)).permute(2, 0, 3, 1, 4)
    return queries, keys, values


def repeated(rows: Tensor, sizes: Tensor) -> Tensor:
    """One image's keys or values, each as often as its size says, in float64."""
    return rows.double().repeat_interleave(sizes.flatten().long(), dim=1)


@settings(max_examples=20)
@given(
    tokens=st.integers(1, 140),
    width=st.sampled_from((8, 16, 24, 64, 80)),
    queries=st.integers(1, 140),
    dtype=st.sampled_from(list(TOLERANCES)),
    seed=st.integers(0, 99),
)
def test_a_key_of_size_n_counts_as_n_keys(
    tokens: int, width: int, queries: int, dtype: torch.dtype, seed: int
) -> None:
    q, k, v = packed(tokens, width, dtype, seed)
    sizes = torch.randint(1, 5, (2, tokens, 1), generator=torch.Generator().manual_seed(seed)).float()

    attended = attention.launch_attention(q[:, :, :queries], k, v, sizes, 0, 0.3, 1.0, q.dtype)

    assert attended.dtype == dtype
    assert attended.transpose(1, 2).is_contiguous()
    for image in range(2):
        expected = functional.scaled_dot_product_attention(
            q[image, :, :queries].double(),
            repeated(k[image], sizes[image]),
            repeated(v[image], sizes[image]),
            scale=0.3,
        )
        torch.testing.assert_close(
            attended[image].double(), expected, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype]
        )


@pytest.mark.parametrize("change", [-2, 0, 3])
def test_keys_may_have_more_or_fewer_tokens_in_front(change: int) -> None:
    q, k, v = packed(50, 16, torch.float32, seed=1)
    sizes = torch.randint(1, 9, (2, 50 - change, 1)).float()

    attended = attention.launch_attention(q, k, v, sizes, change, 0.25, 1.0, q.dtype)

    expected = attend_with_bias(q, k, v, sizes, prefix_change=change, absent=False, scale=0.25)
    torch.testing.assert_close(attended, expected, atol=1e-5, rtol=1e-5)


def test_no_one_attends_to_absent_tokens() -> None:
    q, k, v = packed(70, 16, torch.float32, seed=2)
    sizes = torch.ones(2, 70, 1)
    sizes[:, 40:] = 0

    attended = attention.launch_attention(q, k, v, sizes, 0, 0.25, 1.0, q.dtype)

    expected = functional.scaled_dot_product_attention(q, k[:, :, :40], v[:, :, :40], scale=0.25)
    torch.testing.assert_close(attended, expected, atol=1e-5, rtol=1e-5)


def test_operator_computes_the_definition_on_the_cpu_and_lies_as_the_kernel_writes() -> None:
    q, k, v = packed(20, 8, torch.float32, seed=3)
    sizes = torch.randint(1, 5, (2, 20, 1)).float()

    attended = attention.attend_with_kernel(q, k, v, sizes, prefix_change=0, absent=False)

    torch.testing.assert_close(attended, attend_with_bias(q, k, v, sizes, prefix_change=0, absent=False))
    assert attended.stride() == attention.launch_attention(q, k, v, sizes, 0, 1.0, 1.0, q.dtype).stride()


def test_folded_heads_and_masks_are_left_to_operators() -> None:
    q, k, v = (each.flatten(0, 1) for each in packed(20, 8, torch.float32, seed=3))
    sizes = torch.randint(1, 5, (2, 20, 1)).float()

    attended = attention.attend_with_kernel(q, k, v, sizes, prefix_change=0, absent=False, scale=0.5)

    expected = attend_with_bias(q, k, v, sizes, prefix_change=0, absent=False, scale=0.5)
    assert torch.equal(attended, expected)


def test_result_is_stored_in_e4m3_in_units_of_the_factor() -> None:
    q, k, v = packed(30, 16, torch.float16, seed=4)
    sizes = torch.ones(2, 30, 1)

    attended = attention.launch_attention(q, k, v, sizes, 0, 0.25, 300.0, FP8)

    expected = functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), scale=0.25) * 300
    torch.testing.assert_close(attended.double(), expected.clamp(-448, 448), atol=0.5, rtol=2**-4)
