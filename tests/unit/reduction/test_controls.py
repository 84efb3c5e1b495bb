"""The controls: which patches they drop, whatever the image holds."""

from itertools import groupby, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from exporter.reduction import Site, method
from exporter.reduction.match import Match, is_partition
from tests.support.definitions import Entering, definition

CONTROLS = ("grid", "random")


def control(name: str, tokens: int, at: Site, **options: int) -> Match:
    chosen = method(name)
    return chosen.decide(images(tokens), at=at, **chosen.chosen(options))


def images(tokens: int) -> Tensor:
    return torch.zeros(2, tokens, 4)


@given(
    name=st.sampled_from(CONTROLS),
    patches=st.integers(2, 60),
    prefix=st.integers(0, 5),
    block=st.integers(0, 11),
    data=st.data(),
)
def test_patches_are_those_of_the_definition_in_every_image(
    name: str, patches: int, prefix: int, block: int, data: st.DataObject
) -> None:
    r, tokens = data.draw(st.integers(1, patches - 1)), patches + prefix
    zeros_N = torch.zeros(tokens)
    expected = definition(name)(
        Entering(
            tokens_NC=torch.zeros(tokens, 4),
            sizes_N=torch.ones(tokens),
            keys_HND=zeros_N,
            values_HND=zeros_N,
            row_N=zeros_N,
            removed=r,
            dropped=r,
            prefix=prefix,
            block=block,
            blocks=12,
        )
    )

    match = control(name, tokens, Site(r=r, dropped=r, prefix=prefix, depth=block / 12))

    kept = [token for (token,) in expected.matching.groups]
    assert match.kept_BK.tolist() == [kept, kept]
    assert is_partition(match)
    assert match.dropped == r
    assert int(match.target_BR.min()) >= prefix


@pytest.mark.parametrize("name", CONTROLS)
def test_dropped_patch_names_the_nearest_that_stays(name: str) -> None:
    at = Site(r=20, dropped=20, prefix=1, depth=0.25)

    match = control(name, 31, at)

    kept, named = match.kept_BK[0].tolist(), match.target_BR[0].tolist()
    for source, slot in zip(match.source_BR[0].tolist(), named, strict=True):
        assert abs(source - kept[slot]) == min(abs(source - other) for other in kept[1:])


@pytest.mark.parametrize("name", CONTROLS)
def test_any_other_patch_is_regretted(name: str) -> None:
    chosen, at = method(name), Site(r=3, dropped=3, prefix=1, depth=0.5)
    own = control(name, 12, at)
    other = own._replace(kept_BK=own.kept_BK.clone(), source_BR=own.source_BR.clone())
    other.kept_BK[1, -1], other.source_BR[1, -1] = own.source_BR[1, -1], own.kept_BK[1, -1]

    regret_B = chosen.regret(images(12), match=other, at=at, **chosen.chosen({}))

    assert regret_B.tolist() == [0.0, float("inf")]


def test_seed_and_block_draw_other_patches() -> None:
    first = Site(r=8, dropped=8, prefix=1, depth=0.0)

    drawn = [
        control("random", 65, first).source_BR[0].tolist(),
        control("random", 65, first, seed=1).source_BR[0].tolist(),
        control("random", 65, first._replace(depth=0.25)).source_BR[0].tolist(),
    ]

    assert all(one != other for one, other in pairwise([*drawn, drawn[0]]))


def test_every_patch_is_drawn_about_equally_often() -> None:
    at, counts = Site(r=5, dropped=5, prefix=0, depth=0.0), torch.zeros(10)
    for seed in range(200):
        counts[control("random", 10, at, seed=seed).source_BR[0]] += 1

    # 100 expected, standard deviation 7
    assert counts.sum() == 1000
    assert counts.min() > 70
    assert counts.max() < 130


def test_gaps_of_the_grid_stay_small_over_the_blocks() -> None:
    left = list(range(196))
    for block in range(12):
        match = control("grid", len(left), Site(r=8, dropped=8, prefix=0, depth=block / 12))
        left = [left[place] for place in match.kept_BK[0].tolist()]

    gone = [patch not in left for patch in range(196)]
    assert max(len(list(run)) for is_gone, run in groupby(gone) if is_gone) <= 3
