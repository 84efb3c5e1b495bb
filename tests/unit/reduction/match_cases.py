"""Tokens for matching tests, and a match taken apart into the groups of `tests.support.matching`."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from exporter.reduction import Site
from exporter.reduction.match import Match


def exact_unit_vectors() -> list[list[float]]:
    """Return 24 unit vectors whose products are multiples of 1/4, exact in every float: the 24-cell."""
    signs = (1.0, -1.0)
    axes = [[sign if place == axis else 0.0 for place in range(4)] for axis in range(4) for sign in signs]
    halves = [
        [0.5 * a, 0.5 * b, 0.5 * c, 0.5 * d] for a in signs for b in signs for c in signs for d in signs
    ]
    return axes + halves


@dataclass(frozen=True, kw_only=True)
class MatchCase:
    """Unit vectors (N, C) of one image, prefix tokens, and merges that the cap allows."""

    metric_NC: Tensor
    prefix: int
    r: int

    @property
    def keys_BHND(self) -> Tensor:
        """The vectors as the keys of one head, (1, 1, N, C)."""
        return keys_of(self.metric_NC)

    def site(self, depth: float = 0.25) -> Site:
        """All r tokens merge."""
        return site(self.r, self.prefix, depth)

    @property
    def similarity(self) -> list[list[float]]:
        """Cosines of all pairs in float64."""
        metric_NC = self.metric_NC.double()
        cosines: list[list[float]] = (metric_NC @ metric_NC.T).tolist()
        return cosines


def keys_of(metric_NC: Tensor) -> Tensor:
    """Return vectors as the keys of one image and one head."""
    return metric_NC[None, None]


def site(r: int, prefix: int, depth: float = 0.25) -> Site:
    """Return a place where r tokens merge."""
    return Site(r=r, dropped=0, prefix=prefix, depth=depth)


@st.composite
def tied_cases(draw: st.DrawFn) -> MatchCase:
    """Draw few different tokens, so that ties are everywhere, and exact in fp32."""
    rows = draw(st.lists(st.sampled_from(exact_unit_vectors()), min_size=3, max_size=24))
    return _case(draw, torch.tensor(rows))


@st.composite
def random_cases(draw: st.DrawFn) -> MatchCase:
    """Draw random tokens: no two scores are equal, some are near."""
    tokens, seed = draw(st.integers(3, 24)), draw(st.integers(0, 1_000_000))
    rows = torch.randn(tokens, 6, generator=torch.Generator().manual_seed(seed))
    return _case(draw, rows / rows.norm(dim=1, keepdim=True))


def _case(draw: st.DrawFn, metric_NC: Tensor) -> MatchCase:
    tokens = len(metric_NC)
    prefix = draw(st.integers(0, min(5, tokens - 2)))
    r = draw(st.integers(1, (tokens - prefix) // 2))
    return MatchCase(metric_NC=metric_NC, prefix=prefix, r=r)


def groups_of(match: Match, image: int = 0) -> list[list[int]]:
    """Return the tokens that leave, in order, each as the list of tokens that it is made of, itself first."""
    kept, sources, targets = (part[image].tolist() for part in match[:3])
    return [
        [token, *(source for source, target in zip(sources, targets, strict=True) if target == slot)]
        for slot, token in enumerate(kept)
    ]
