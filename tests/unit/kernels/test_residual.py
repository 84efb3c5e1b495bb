"""The kernels of residual sum, merge and LayerNorm, interpreted on the CPU, against loops in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from exporter.graph.fp8 import FP8
from exporter.kernels import residual
from exporter.reduction.match import Match
from exporter.reduction.merge import merge_by_lookup

WIDTHS = (5, 48, 64, 100)
EPS = 1e-6
ROUNDING = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Relative error of one stored number."""


def drawn(
    tokens: int, width: int, seed: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, y of two images, and sizes from 1 to 5."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(2, tokens, width, generator=generator).to(dtype) for _ in range(2))
    return x, y, torch.randint(1, 6, (2, tokens, 1), generator=generator).float()


def random_match(tokens: int, r: int, seed: int) -> Match:
    """Return a match of two images that knows no metric; several tokens may merge into one."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(tokens, generator=generator) for _ in range(2)]
    kept = torch.stack([order[r:].sort().values for order in orders])
    targets = torch.randint(0, tokens - r, (2, r), generator=generator)
    return Match(kept, torch.stack([order[:r] for order in orders]), targets)


def affine(width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    return torch.randn(width, generator=generator), torch.randn(width, generator=generator)


def merged_by_loops(total: Tensor, sizes: Tensor, match: Match, merging: int) -> tuple[Tensor, Tensor]:
    """The size-weighted mean, token by token."""
    kept, sources, targets = match[:3]
    rows, counts = total.double(), sizes.double()
    merged = torch.zeros(*kept.shape, total.shape[2], dtype=torch.float64)
    merged_sizes = torch.zeros(*kept.shape, 1, dtype=torch.float64)
    for image in range(len(kept)):
        for slot, token in enumerate(kept[image].tolist()):
            own = sources[image, :merging][targets[image, :merging] == slot]
            members = [token, *own.tolist()]
            size = sum(counts[image, member] for member in members)
            merged[image, slot] = sum(rows[image, m] * counts[image, m] for m in members) / size
            merged_sizes[image, slot] = size
    return merged, merged_sizes


def normalised(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    norm = nn.LayerNorm(rows.shape[-1], EPS, dtype=torch.float64)
    norm.load_state_dict({"weight": weight.double(), "bias": bias.double()})
    normed: Tensor = norm(rows.double()).detach()
    return normed


@settings(max_examples=25)
@given(
    tokens=st.integers(3, 40),
    width=st.sampled_from(WIDTHS),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(list(ROUNDING)),
    sized=st.booleans(),
)
def test_merge_add_norm_is_the_weighted_mean_and_its_norm(
    tokens: int, width: int, share: float, seed: int, dtype: torch.dtype, sized: bool
) -> None:
    r = 1 + int(share * (tokens - 2))
    x, y, sizes = drawn(tokens, width, seed, dtype)
    match, (weight, bias) = random_match(tokens, r, seed), affine(width)
    dropped = seed % r

    merged, merged_sizes, normed = residual.launch_merge(
        residual._Tokens(x, y, sizes if sized else None),
        residual._Indices(*match[:3], dropped),
        residual._Norm(weight, bias, EPS, 1.0, dtype),
    )

    counted = sizes if sized else torch.ones_like(sizes)
    rows, expected_sizes = merged_by_loops(x.double() + y.double(), counted, match, r - dropped)
    assert (merged.dtype, normed.dtype, merged_sizes.dtype) == (dtype, dtype, torch.float32)
    torch.testing.assert_close(merged_sizes.double(), expected_sizes)
    close = 4 * ROUNDING[dtype]
    torch.testing.assert_close(merged.double(), rows, atol=close, rtol=close)
    torch.testing.assert_close(normed.double(), normalised(rows, weight, bias), atol=close, rtol=close)


@pytest.mark.parametrize("width", WIDTHS)
def test_add_norm_is_the_sum_and_its_norm(width: int) -> None:
    x, y, _ = drawn(9, width, seed=3)
    weight, bias = affine(width)

    total, normed = residual.launch_add_norm(x, y.half(), weight, bias, EPS, 1.0, torch.float16)

    assert (total.dtype, normed.dtype) == (torch.float32, torch.float16)
    torch.testing.assert_close(total, x + y.half())
    torch.testing.assert_close(
        normed.double(), normalised(x.double() + y.half().double(), weight, bias), atol=4e-3, rtol=4e-3
    )


def test_absent_tokens_count_in_no_mean_and_a_mean_of_nothing_is_zero() -> None:
    x, _, sizes = drawn(8, 6, seed=1)
    sizes[:, ::2] = 0
    match = Match(
        kept_BK=torch.tensor([[0, 1, 2, 3]] * 2), source_BR=torch.tensor([[4, 5, 6, 7]] * 2),
        target_BR=torch.tensor([[0, 1, 1, 3]] * 2),
    )  # fmt: skip

    merged, merged_sizes, _ = residual.launch_merge(
        residual._Tokens(x, None, sizes), residual._Indices(*match[:3], 0), None
    )

    expected, expected_sizes = merge_by_lookup(x, sizes, match, absent=True)
    assert (merged_sizes[:, 0] == 0).all()
    torch.testing.assert_close(merged_sizes, expected_sizes)
    torch.testing.assert_close(merged[:, 1:], expected[:, 1:])
    assert (merged[:, 0] == 0).all()


def test_a_token_that_nothing_merges_into_is_the_sum_itself() -> None:
    x, y, sizes = drawn(12, 16, seed=5)
    match = random_match(12, 1, seed=5)

    merged, _, _ = residual.launch_merge(
        residual._Tokens(x, y, sizes), residual._Indices(*match[:3], 0), None
    )

    alone = torch.ones(11, dtype=torch.bool)
    alone[match.target_BR[0, 0]] = False
    assert torch.equal(merged[0, alone], (x + y)[0, match.kept_BK[0, alone]])


def test_operators_compute_the_definition_on_the_cpu() -> None:
    x, y, sizes = drawn(10, 12, seed=2)
    match, (weight, bias) = random_match(10, 4, seed=2), affine(12)

    fused = residual.merge_add_norm_by_kernel(x, y, sizes, match, weight, bias, EPS, 1.0, torch.float32)
    merged, merged_sizes = residual.merge_by_kernel(x + y, sizes, match)

    expected, expected_sizes = merge_by_lookup(x + y, sizes, match)
    torch.testing.assert_close(fused[:2], (expected, expected_sizes))
    torch.testing.assert_close((merged, merged_sizes), (expected, expected_sizes))
    torch.testing.assert_close(fused[2].double(), normalised(expected, weight, bias), atol=1e-5, rtol=1e-5)


def test_tokens_dropped_by_image_are_left_to_operators() -> None:
    x, y, sizes = drawn(10, 12, seed=2)
    match, (weight, bias) = random_match(10, 4, seed=2), affine(12)
    match = match._replace(dropped=torch.tensor([[0, 1, 0, 0], [1, 1, 0, 1]]))

    merged, merged_sizes, _ = residual.merge_add_norm_by_kernel(
        x, y, sizes, match, weight, bias, EPS, 1.0, torch.float32
    )

    torch.testing.assert_close((merged, merged_sizes), merge_by_lookup(x + y, sizes, match))


def test_norms_are_stored_in_e4m3_in_units_of_the_factor() -> None:
    x, y, sizes = drawn(10, 48, seed=4)
    match, (weight, bias) = random_match(10, 4, seed=4), affine(48)
    norm = residual._Norm(weight, bias, EPS, 200.0, FP8)

    merged, _, normed = residual.launch_merge(
        residual._Tokens(x, y, sizes), residual._Indices(*match[:3], 0), norm
    )
    _, alone = residual.launch_add_norm(x, y, *norm)

    for rows, found in ((merged, normed), (x + y, alone)):
        expected = (normalised(rows, weight, bias) * 200).clamp(-448, 448)
        assert found.dtype == FP8
        torch.testing.assert_close(found.double(), expected, atol=0.02, rtol=2**-4)
        assert found.float().abs().max() == 448


def test_indices_and_sizes_may_be_views_with_gaps() -> None:
    x, y, sizes = drawn(10, 12, seed=2)
    match = random_match(10, 4, seed=2)
    kept, sources, targets = (each.repeat_interleave(2, dim=1)[:, ::2] for each in match[:3])
    spread = residual._Indices(kept, sources, targets, 0)
    spread_sizes = sizes.repeat_interleave(2, dim=1)[:, ::2]

    merged, merged_sizes, _ = residual.launch_merge(residual._Tokens(x, y, spread_sizes), spread, None)

    assert not spread.source_BR.is_contiguous()
    expected, expected_sizes = merge_by_lookup(x + y, sizes, match)
    torch.testing.assert_close(merged, expected)
    torch.testing.assert_close(merged_sizes, expected_sizes)
