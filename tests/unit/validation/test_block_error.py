"""Groups through merges, and the error of merged tokens, against plain Python."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import ParityError
from exporter.reduction.match import Match
from exporter.reduction.merge import merge_by_lookup
from exporter.reduction.sizes import initial_sizes
from exporter.reduction.unmerge import follow
from exporter.validation.block_error import initial_groups, relative_error


@st.composite
def matches(draw: st.DrawFn, batch: int, tokens: int) -> Match:
    """Draw any partition of the tokens into those that stay, in any order, and those that merge into any of them."""
    r = draw(st.integers(0, tokens - 1))
    orders = [draw(st.permutations(range(tokens))) for _ in range(batch)]
    targets = [draw(st.lists(st.integers(0, tokens - r - 1), min_size=r, max_size=r)) for _ in range(batch)]
    return Match(
        kept_BK=torch.tensor([order[: tokens - r] for order in orders]).reshape(batch, tokens - r),
        source_BR=torch.tensor([order[tokens - r :] for order in orders], dtype=torch.int64).reshape(
            batch, r
        ),
        target_BR=torch.tensor(targets, dtype=torch.int64).reshape(batch, r),
    )


@st.composite
def roads(draw: st.DrawFn) -> tuple[int, int, list[Match]]:
    """Draw a batch size, a number of tokens, and up to four merges in a row."""
    batch, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    road: list[Match] = []
    for _ in range(draw(st.integers(0, 4))):
        road.append(draw(matches(batch, road[-1].kept_BK.shape[1] if road else tokens)))
    return batch, tokens, road


def followed(batch: int, tokens: int, road: list[Match]) -> torch.Tensor:
    groups = initial_groups(batch, tokens)
    for match in road:
        groups = follow(groups, match)
    return groups


def members(image: int, tokens: int, road: list[Match]) -> list[set[int]]:
    """The definition: every token is a set of originals, and a merge unites sets."""
    sets = [{token} for token in range(tokens)]
    for match in road:
        merged = [set(sets[place]) for place in match.kept_BK[image].tolist()]
        for source, target in zip(
            match.source_BR[image].tolist(), match.target_BR[image].tolist(), strict=True
        ):
            merged[target] |= sets[source]
        sets = merged
    return sets


@given(case=roads())
def test_groups_are_the_united_sets(case: tuple[int, int, list[Match]]) -> None:
    batch, tokens, road = case

    groups = followed(batch, tokens, road)

    assert (groups.shape, groups.dtype) == ((batch, tokens), torch.int64)
    for image in range(batch):
        sets = members(image, tokens, road)
        assert [sorted(each) for each in sets] == [
            [token for token in range(tokens) if groups[image, token] == place] for place in range(len(sets))
        ]


@given(case=roads(), seed=st.integers(0, 99))
def test_merged_token_is_the_mean_of_its_group(case: tuple[int, int, list[Match]], seed: int) -> None:
    """What a merge computes, step by step with sizes, is the plain mean over the originals that the groups name."""
    batch, tokens, road = case
    dense = torch.randn(batch, tokens, 3, generator=torch.Generator().manual_seed(seed))
    reduced, sizes = dense, initial_sizes(dense)
    for match in road:
        reduced, sizes = merge_by_lookup(reduced, sizes, match)

    groups = followed(batch, tokens, road)

    for image in range(batch):
        for place in range(reduced.shape[1]):
            mean = dense[image, groups[image] == place].mean(dim=0)
            torch.testing.assert_close(reduced[image, place], mean, rtol=1e-4, atol=1e-5)


@given(case=roads(), seed=st.integers(0, 99))
def test_error_is_that_of_the_definition(case: tuple[int, int, list[Match]], seed: int) -> None:
    batch, tokens, road = case
    generator = torch.Generator().manual_seed(seed)
    kept = road[-1].kept_BK.shape[1] if road else tokens
    dense = torch.randn(batch, tokens, 2, generator=generator)
    reduced = torch.randn(batch, kept, 2, generator=generator)
    groups = followed(batch, tokens, road)

    found = relative_error(dense, reduced, groups)

    shares = []
    for image in range(batch):
        lost = whole = 0.0
        for place, group in enumerate(members(image, tokens, road)):
            for token in group:
                for channel in range(2):
                    value = dense[image, token, channel].item()
                    lost += (value - reduced[image, place, channel].item()) ** 2
                    whole += value**2
        shares.append(math.sqrt(lost) / math.sqrt(whole))
    assert found == pytest.approx(sum(shares) / batch, rel=1e-9)


def test_merging_two_unlike_tokens_loses_half_their_distance() -> None:
    """(3, 0) and (0, 4) become (1.5, 2): each is off by 2.5, of a length of 5 in all."""
    dense = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])

    assert relative_error(dense, torch.tensor([[[1.5, 2.0]]]), torch.tensor([[0, 0]])) == pytest.approx(
        2.5 * math.sqrt(2) / 5
    )


def test_small_differences_are_not_lost_in_half_precision_sums() -> None:
    """4,096 tokens, each off by 1/16 of itself: a sum in fp16 would stop growing long before."""
    dense = torch.full((1, 4096, 4), 16.0, dtype=torch.float16)

    assert relative_error(dense, dense - 1, initial_groups(1, 4096)) == pytest.approx(1 / 16)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["dense", "reduced"])
def test_state_that_is_not_finite_is_no_error_figure(bad: float, side: str) -> None:
    states = {"dense": torch.ones(1, 2, 2), "reduced": torch.ones(1, 2, 2)}
    states[side][0, 0, 0] = bad

    with pytest.raises(ParityError, match="finite token states"):
        relative_error(states["dense"], states["reduced"], initial_groups(1, 2))


def test_dense_states_of_nothing_but_zeros_are_refused() -> None:
    with pytest.raises(ParityError, match="not all zero"):
        relative_error(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), initial_groups(1, 2))
