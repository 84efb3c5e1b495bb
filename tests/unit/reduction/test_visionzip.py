"""VisionZip's decision against its definition, and what a wrong one costs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exporter.reduction import Site, method
from exporter.reduction.match import Match, is_partition
from tests.support.matching import best_destination, cosine

VISIONZIP = method("visionzip")
SHARE = 0.3


def site(r: int, prefix: int = 1) -> Site:
    return Site(r=r, dropped=0, prefix=prefix, depth=0.9)


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, Site]:
    """Few different attentions, so that ties are everywhere; keys of one head; odd counts."""
    prefix, patches = draw(st.integers(1, 3)), draw(st.integers(2, 17))
    count = prefix + patches
    row = draw(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=count, max_size=count))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    keys = torch.randn(1, 1, count, 5, generator=generator)
    return torch.tensor([row]), keys, site(draw(st.integers(1, patches - 1)), prefix)


@given(case=cases())
def test_decision_is_that_of_the_definition_and_has_no_regret(
    case: tuple[torch.Tensor, torch.Tensor, Site],
) -> None:
    row_BN, keys, at = case
    row = row_BN[0].tolist()
    stay = len(row) - at.prefix - at.r
    contextual = max(1, round(SHARE * stay))
    ranked = sorted(range(at.prefix, len(row)), key=lambda patch: -row[patch])
    dominant, rest = sorted(ranked[: stay - contextual]), sorted(ranked[stay - contextual :])
    targets = rest[:: len(rest) // contextual][:contextual]
    similarity = cosine(keys[0, 0])

    match = VISIONZIP.decide(row_BN, keys, at=at, contextual=SHARE)

    assert match.kept_BK[0].tolist() == [*range(at.prefix), *dominant, *targets]
    assert is_partition(match)
    kept = match.kept_BK[0].tolist()
    for source, target in zip(match.source_BR[0].tolist(), match.target_BR[0].tolist(), strict=True):
        assert kept[target] == best_destination(similarity[source], targets)
    assert float(VISIONZIP.regret(row_BN, keys, match=match, at=at, contextual=SHARE)) < 1e-6


ROW = torch.tensor([[0.3, 0.01, 0.2, 0.02, 0.19, 0.05, 0.06, 0.07]])
KEYS = torch.randn(1, 1, 8, 4, generator=torch.Generator().manual_seed(3))


def regret(match: Match) -> float:
    return float(VISIONZIP.regret(ROW, KEYS, match=match, at=site(3), contextual=0.5))


def test_wrong_choices_are_regretted() -> None:
    own = VISIONZIP.decide(ROW, KEYS, at=site(3), contextual=0.5)
    assert own.kept_BK.tolist() == [[0, 2, 4, 1, 5]]

    other_dominant = own._replace(
        kept_BK=torch.tensor([[0, 2, 7, 1, 4]]), source_BR=torch.tensor([[3, 5, 6]])
    )
    other_step = own._replace(kept_BK=torch.tensor([[0, 2, 4, 1, 6]]), source_BR=torch.tensor([[3, 5, 7]]))
    other_target = own._replace(target_BR=7 - own.target_BR)

    assert regret(own) < 1e-6
    assert regret(other_dominant) == pytest.approx((0.19 - 0.07) / (0.2 - 0.01), abs=1e-3)
    assert regret(other_step) == float("inf")
    assert regret(other_target) > 1e-3
