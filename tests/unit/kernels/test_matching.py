"""The matching kernels, interpreted on the CPU, against the definitions in `reduction`."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from exporter.kernels import matching
from exporter.reduction import Site, method
from exporter.reduction.match import Match, is_partition
from tests.unit.reduction.match_cases import MatchCase, random_cases, tied_cases

METHODS = ("tome", "pitome")
SIZES = (*range(5, 19), 31, 32, 33, 47, 48, 49, *range(62, 69), 127, 129, 130, 197, 198)
"""Tokens that fill tiles of 16, 32 and 64, those around them, and more than one tile."""


def options_of(name: str) -> dict[str, Any]:
    """Those that the kernels are for."""
    return method(name).chosen({"bipartite": "none"} if name == "pitome" else {})


def launched(name: str, keys_BHND: Tensor, at: Site) -> Match:
    """Launch the kernels of a method."""
    if name == "tome":
        return Match(*matching.launch_tome(keys_BHND, at.prefix, at.r))
    margin = options_of(name)["margin"] * (1 - at.depth)
    return Match(*matching.launch_pitome(keys_BHND, at.prefix, at.r, margin))


def defined(name: str, keys_BHND: Tensor, at: Site) -> Match:
    return method(name).decide(keys_BHND, at=at, **options_of(name))


def regret(name: str, keys_BHND: Tensor, match: Match, at: Site) -> float:
    return float(method(name).regret(keys_BHND, match=match, at=at, **options_of(name)).max())


def equal(one: Match, other: Match) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one[:3], other[:3], strict=True))


def keys(tokens: int, dtype: torch.dtype = torch.float32, heads: int = 2, width: int = 24) -> Tensor:
    """Random keys of two images as they lie in a packed projection: a view with a gap between tokens."""
    generator = torch.Generator().manual_seed(tokens)
    packed = torch.randn(2, tokens, heads * width + 3, generator=generator).to(dtype)
    apart: Tensor = packed[..., 3:].unflatten(-1, (heads, width))
    return apart.transpose(1, 2)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(case=tied_cases(), depth=st.sampled_from((0.0, 0.5)))
def test_ties_go_to_the_lowest_index(name: str, case: MatchCase, depth: float) -> None:
    at = case.site(depth)
    if name == "pitome":  # sums of exact numbers are exact, those of exponentials are not
        match = launched(name, case.keys_BHND, at)
        assert is_partition(match)
        assert regret(name, case.keys_BHND, match, at) < 1e-5
    else:
        assert equal(launched(name, case.keys_BHND, at), defined(name, case.keys_BHND, at))


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(case=random_cases())
def test_small_matches_follow_the_definition(name: str, case: MatchCase) -> None:
    at = case.site()

    match = launched(name, case.keys_BHND, at)

    assert is_partition(match)
    assert regret(name, case.keys_BHND, match, at) < 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_every_number_of_tokens(name: str) -> None:
    missed = {}
    for tokens in SIZES:
        dtype = (torch.float32, torch.float16, torch.bfloat16)[tokens % 3]
        prefix = tokens % 4
        at = Site(r=1 + tokens % ((tokens - prefix) // 2), dropped=0, prefix=prefix, depth=0.25)
        given_keys = keys(tokens, dtype, heads=1 + tokens % 2, width=8)[:1]
        match = launched(name, given_keys, at)
        if not is_partition(match) or regret(name, given_keys, match, at) > 1e-5:
            missed[tokens] = at

    assert missed == {}


@pytest.mark.parametrize(("name", "tokens"), [("tome", 577), ("tome", 600), ("pitome", 300), ("pitome", 600)])
def test_many_tokens_of_one_head(name: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Site(r=tokens // 3, dropped=0, prefix=1, depth=0.5)
    given_keys = keys(tokens, torch.float16, heads=1, width=80)[:1]
    if tokens == 600:
        monkeypatch.setattr(matching, "_LARGEST_RANKED_TWICE", 300)

    match = launched(name, given_keys, at)

    assert is_partition(match)
    assert regret(name, given_keys, match, at) < 1e-5


def test_ranks_of_a_launch_of_its_own_give_the_same_match(monkeypatch: pytest.MonkeyPatch) -> None:
    at, given_keys = Site(r=40, dropped=0, prefix=5, depth=0.25), keys(150)
    together = launched("pitome", given_keys, at)

    monkeypatch.setattr(matching, "_LARGEST_RANKED_TWICE", 100)

    assert equal(launched("pitome", given_keys, at), together)


BAD_KEYS: dict[str, Callable[[Tensor], Tensor]] = {
    "nan everywhere": lambda keys: torch.full_like(keys, torch.nan),
    "one nan": lambda keys: keys.index_fill(2, torch.tensor(7), torch.nan),
    "some nan": lambda keys: keys.masked_fill(keys > 1.5, torch.nan),
    "infinite": lambda keys: keys.masked_fill(keys > 1.5, torch.inf),
    "all equal": torch.ones_like,
    "zero": torch.zeros_like,
}


@pytest.mark.parametrize(("name", "kind"), list(product(METHODS, BAD_KEYS)))
def test_no_index_is_out_of_range_whatever_the_keys_hold(name: str, kind: str) -> None:
    at = Site(r=17, dropped=0, prefix=2, depth=0.25)
    given_keys = BAD_KEYS[kind](keys(140 if name == "tome" else 70))  # partners in two tiles

    match = launched(name, given_keys, at)

    assert is_partition(match)
    assert int(match.target_BR.min()) >= at.prefix
    assert int(match.target_BR.max()) < match.kept_BK.shape[1]
    if kind in ("all equal", "zero"):
        assert equal(match, defined(name, given_keys, at))


@pytest.mark.parametrize("name", METHODS)
def test_operator_computes_the_definition_on_the_cpu(name: str) -> None:
    at, given_keys = Site(r=9, dropped=0, prefix=1, depth=0.5), keys(41)

    match = method(name).decision("kernels")(given_keys, at=at, **options_of(name))

    assert equal(match, defined(name, given_keys, at))
    assert match.dropped == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("tome", {"metric": "tokens"}, id="tome by tokens"),
        pytest.param("tome", {"size_penalty": 0.1}, id="tome with sizes"),
        pytest.param("pitome", {"bipartite": "all"}, id="pitome, all patches"),
        pytest.param("pitome", {"bipartite": "none", "energy": "paper"}, id="pitome, the paper's energy"),
        pytest.param("pitome", {"bipartite": "none", "metric": "tokens"}, id="pitome by tokens"),
        pytest.param("tofu", {}, id="tofu"),
    ],
)
def test_options_without_kernels_are_decided_by_operators(name: str, options: dict[str, Any]) -> None:
    chosen, at = method(name).with_options(options), Site(r=9, dropped=0, prefix=1, depth=0.5)
    given = {"mean_keys": keys(41), "tokens": keys(41)[:, 0], "sizes": torch.ones(len(keys(41)), 41, 1)}
    signals = [given[signal] for signal in chosen.reads]

    match = chosen.decision("kernels")(*signals, at=at, **chosen.chosen(options))

    assert equal(match, chosen.decide(*signals, at=at, **chosen.chosen(options)))
