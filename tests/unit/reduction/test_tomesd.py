"""ToMe for diffusion: which tokens merge on a grid, exact ties and odd sides included, and what a wrong match costs."""

import pytest
import torch
from torch import Tensor

from exporter.reduction import Site, method
from exporter.reduction.match import Match
from exporter.reduction.plain_mean import merge_plainly
from exporter.schedule import Grid

TOMESD = method("tomesd")


def site(rows: int, columns: int, r: int) -> Site:
    return Site(r=r, dropped=0, prefix=0, depth=0.0, tokens=rows * columns, grid=(rows, columns))


def pairs(match: Match) -> set[tuple[int, int]]:
    return {
        (int(source), int(match.kept_BK[0, target]))
        for source, target in zip(match.source_BR[0], match.target_BR[0], strict=True)
    }


def test_the_most_similar_tokens_merge_into_the_top_left_ones_of_full_cells() -> None:
    tokens = torch.eye(15).unsqueeze(0)  # 3 x 5: cells begin at 0 and 2 only, and nothing is alike but:
    tokens[0, 14] = 7 * tokens[0, 2]
    tokens[0, 5] = tokens[0, 0] + 0.1 * tokens[0, 5]

    match = TOMESD.decide(tokens, at=site(3, 5, 2))

    assert pairs(match) == {(14, 2), (5, 0)}
    assert match.kept_BK[0].tolist() == [1, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 0, 2]
    assert TOMESD.grid_cap(Grid(rows=3, columns=5, downsampling=1), max_downsample=1) == 13


def test_ties_go_to_the_lower_position() -> None:
    match = TOMESD.decide(torch.ones(1, 16, 3), at=site(4, 4, 3))

    assert pairs(match) == {(1, 0), (3, 0), (4, 0)}


@pytest.mark.parametrize(
    ("rows", "columns", "downsampling", "deepest", "most"),
    [(8, 8, 1, 1, 48), (8, 8, 2, 1, 0), (8, 8, 2, 2, 48), (1, 8, 1, 1, 0), (7, 6, 1, 1, 33)],
)
def test_most_tokens_of_a_grid(rows: int, columns: int, downsampling: int, deepest: int, most: int) -> None:
    grid = Grid(rows=rows, columns=columns, downsampling=downsampling)

    assert TOMESD.grid_cap(grid, max_downsample=deepest) == most


def drawn() -> Tensor:
    return torch.randn(2, 24, 5, generator=torch.Generator().manual_seed(0))


def test_own_match_has_no_regret_and_every_mistake_has_some() -> None:
    tokens, at = drawn(), site(4, 6, 9)
    match = TOMESD.decide(tokens, at=at)
    other_partner = match._replace(target_BR=match.target_BR.clone())
    other_partner.target_BR[0, 0] = 9 + (int(match.target_BR[0, 0]) - 9 + 1) % 6
    stayed, merged = match.kept_BK.clone(), match.source_BR.clone()
    stayed[0, 0], merged[0, 8] = merged[0, 8].clone(), stayed[0, 0].clone()
    order = stayed[0, :9].sort().values
    stayed[0, :9] = order

    assert TOMESD.regret(tokens, match=match, at=at).tolist() == [0.0, 0.0]
    assert TOMESD.regret(tokens, match=other_partner, at=at)[0] > 1e-3
    assert TOMESD.regret(tokens, match=match._replace(kept_BK=stayed, source_BR=merged), at=at)[0] > 1e-3
    moved = match._replace(kept_BK=match.kept_BK.flip(1))
    assert TOMESD.regret(tokens, match=moved, at=at).isinf().all()


def test_plain_mean_counts_every_token_once() -> None:
    tokens, at = drawn(), site(4, 6, 9)
    match = TOMESD.decide(tokens, at=at)

    merged = merge_plainly(tokens, match, targets=6)

    assert merged.shape == (2, 15, 5)
    for image in range(2):
        for slot in range(15):
            sources = match.source_BR[image][match.target_BR[image] == slot]
            members = tokens[image, [int(match.kept_BK[image, slot]), *sources.tolist()]]
            torch.testing.assert_close(merged[image, slot], members.mean(dim=0))
