"""ToFu: what it drops where, and how it combines what it merges."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from exporter.reduction import Site, method
from exporter.reduction.match import Match
from exporter.reduction.methods.tofu import combine
from tests.support.definitions import Entering, definition
from tests.unit.reduction.match_cases import MatchCase, random_cases, tied_cases

TOFU = method("tofu")
DROPS, MERGES = 0, 3


@pytest.mark.parametrize(
    ("blocks", "given_", "dropping"),
    [
        # i <= L // 2 drops in public re-implementations: 7 of 12
        pytest.param(12, {}, 7, id="twelve blocks"),
        pytest.param(5, {}, 3, id="five blocks"),
        pytest.param(12, {"split": 0}, 0, id="merges everywhere"),
        pytest.param(12, {"split": 12}, 12, id="drops everywhere"),
    ],
)
def test_first_blocks_drop_and_the_others_merge(blocks: int, given_: dict[str, int], dropping: int) -> None:
    counts = [TOFU.dropped(9, block, blocks, **TOFU.chosen(given_)) for block in range(blocks)]

    assert counts == [9] * dropping + [0] * (blocks - dropping)


@given(case=st.one_of(tied_cases(), random_cases()), dropped=st.booleans())
def test_pairs_are_those_of_tome(case: MatchCase, dropped: bool) -> None:
    tome = method("tome").decide(case.keys_BHND, at=case.site())
    at = case.site()._replace(dropped=case.r if dropped else 0)

    match = TOFU.decide(case.keys_BHND, at=at, **TOFU.chosen({}))

    assert match.dropped == at.dropped
    assert all(torch.equal(part, same) for part, same in zip(match[:3], tome[:3], strict=True))
    assert float(TOFU.regret(case.keys_BHND, match=match, at=at, **TOFU.chosen({}))) <= 1e-6


def image(seed: int, tokens: int = 14) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, sizes and keys of one image."""
    generator = torch.Generator().manual_seed(seed)
    x_BNC = torch.randn(1, tokens, 6, generator=generator) * torch.rand(1, tokens, 1, generator=generator) * 9
    sizes_BN1 = torch.randint(1, 5, (1, tokens, 1), generator=generator).float()
    return x_BNC, sizes_BN1, torch.randn(1, 2, tokens, 5, generator=generator)


@pytest.mark.parametrize("form", ["gather", "one-hot"])
@pytest.mark.parametrize(
    ("block", "weighted"),
    [
        pytest.param(DROPS, True, id="drops"),
        pytest.param(MERGES, True, id="merges"),
        pytest.param(MERGES, False, id="merges without sizes"),
    ],
)
def test_tokens_and_sizes_are_those_of_the_definition(block: int, weighted: bool, form: str) -> None:
    x_BNC, sizes_BN1, keys_BHND = image(0)
    sizes_BN1 = sizes_BN1 if weighted else torch.ones_like(sizes_BN1)
    options = TOFU.chosen({"weighted": weighted})
    at = Site(r=5, dropped=TOFU.dropped(5, block, 4, **options), prefix=1, depth=block / 4)
    expected = definition("tofu")(
        Entering(
            tokens_NC=x_BNC[0].double(),
            sizes_N=sizes_BN1[0, :, 0],
            keys_HND=keys_BHND[0].double(),
            values_HND=keys_BHND[0],
            row_N=sizes_BN1[0, :, 0],
            removed=5,
            dropped=at.dropped,
            prefix=1,
            block=block,
            blocks=4,
            options={"weighted": weighted},
        )
    )

    match = TOFU.decide(keys_BHND, at=at, **options)
    tokens_BKC, sizes_BK1 = combine(x_BNC, sizes_BN1, match, keys_BHND, form=form, **options)

    torch.testing.assert_close(tokens_BKC[0].double(), expected.tokens_KC, atol=1e-5, rtol=1e-5)
    assert sizes_BK1[0, :, 0].tolist() == expected.sizes_K.tolist()


PAIR = Match(torch.tensor([[0, 2]]), torch.tensor([[1]]), torch.tensor([[1]]))
"""Token 1 merges into token 2, and token 0 is left alone."""


def merged(x_BNC: Tensor) -> Tensor:
    ones_BN1 = torch.ones_like(x_BNC[..., :1], dtype=torch.float32)
    return combine(x_BNC, ones_BN1, PAIR, x_BNC, form="gather", weighted=True)[0]


def test_merged_token_is_as_long_as_its_longest_member() -> None:
    # mean of (3, 4) and (0, 1) is (1.5, 2.5); the longer one has length 5
    tokens = merged(torch.tensor([[[7.0, 7.0], [0.0, 1.0], [3.0, 4.0]]]))

    scale = 5 / (1.5**2 + 2.5**2) ** 0.5
    torch.testing.assert_close(tokens[0, 1], torch.tensor([1.5 * scale, 2.5 * scale]))


def test_token_that_nothing_merges_into_is_untouched() -> None:
    x_BNC = torch.randn(1, 3, 384, generator=torch.Generator().manual_seed(1))

    assert torch.equal(merged(x_BNC)[0, 0], x_BNC[0, 0])


def test_norms_beyond_fp16_do_not_overflow() -> None:
    # squares of 400 are no fp16 numbers
    x_BNC = torch.full((1, 3, 4), 400.0, dtype=torch.float16)

    tokens = merged(x_BNC)

    assert tokens.dtype == torch.float16
    assert torch.equal(tokens, x_BNC[:, :2])


def test_opposite_tokens_leave_no_nan() -> None:
    tokens = merged(torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]]))

    assert tokens[0, 1].tolist() == [0.0, 0.0]
