"""The counts that save a share of the multiply-accumulates, by the plain formula of a ViT and by trying all counts."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import UsageError
from exporter.schedule import Geometry, Grid, ScheduleRequest, Workload, plan
from exporter.schedule.plan import all_patches_but_one

CHANNELS, FIXED = 192, 5_000_000


def geometry(tokens: int, blocks: int, *, dropping: bool = False) -> Geometry:
    """A plain ViT of one class token; per block 12 C^2 per token and 2 C per pair, the MLP after the merge."""
    c = CHANNELS
    linear = (4 * c * c, *[12 * c * c] * (blocks - 1), 8 * c * c)
    pairs = (*[2 * c] * blocks, 0)
    found = Geometry(
        tokens=tokens,
        protected=1,
        blocks=blocks,
        workload=Workload(fixed=FIXED, per_token=linear, per_pair=pairs),
    )
    if not dropping:
        return found
    return Geometry(
        tokens=tokens, protected=1, blocks=blocks, workload=found.workload, cap=all_patches_but_one
    )


def written_out(tokens: tuple[int, ...]) -> int:
    """MACs of the token counts that enter each block and leave the last."""
    c = CHANNELS
    return FIXED + sum(4 * n * c * c + 2 * n * n * c + 8 * after * c * c for n, after in pairwise(tokens))


def every_even_schedule(tokens: int, blocks: int) -> list[tuple[int, ...]]:
    """All that remove r or, in the first blocks, r + 1 tokens, as far as half of the patches of each block allow."""
    found = []
    for r in range(tokens):
        for more in range(blocks):
            left = [tokens]
            for block in range(blocks):
                left.append(left[-1] - min(r + (block < more), (left[-1] - 1) // 2))
            found.append(tuple(left))
    return found


@given(
    tokens=st.integers(5, 60), blocks=st.integers(1, 6), ratio=st.floats(0.0, 1.0).map(lambda x: round(x, 3))
)
def test_no_even_schedule_comes_nearer(tokens: int, blocks: int, ratio: float) -> None:
    dense = written_out((tokens,) * (blocks + 1))
    savings = [1 - written_out(each) / dense for each in every_even_schedule(tokens, blocks)]
    request = ScheduleRequest(reduction_ratio=ratio)
    if ratio > max(savings) + 1e-3:
        with pytest.raises(UsageError, match=rf"expected at most {max(savings):.3f}"):
            plan(request, geometry(tokens, blocks))
    elif ratio < max(savings):
        schedule = plan(request, geometry(tokens, blocks))
        got = 1 - written_out(schedule.tokens) / dense
        assert abs(got - ratio) <= min(abs(each - ratio) for each in savings) + 1e-9


def test_a_third_of_vit_b_s_work_by_hand() -> None:
    schedule = plan(ScheduleRequest(reduction_ratio=0.3), geometry(197, 12))

    assert set(schedule.merged) <= {schedule.merged[0], schedule.merged[0] - 1}
    assert list(schedule.merged) == sorted(schedule.merged, reverse=True)
    assert schedule.tokens == tuple(accumulate(schedule.merged, lambda n, r: n - r, initial=197))
    saved = 1 - written_out(schedule.tokens) / written_out((197,) * 13)
    assert saved == pytest.approx(0.3, abs=0.003)
    assert schedule.requested == "reduction-ratio 0.3"
    (note,) = schedule.notes
    assert f"save {saved:.3f} of the dense multiply-accumulates, 0.3 was asked" in note


def test_nothing_to_save_is_dense() -> None:
    assert ScheduleRequest(reduction_ratio=0.0).is_dense
    schedule = plan(ScheduleRequest(reduction_ratio=0.0), geometry(50, 4))
    assert schedule.is_dense
    assert schedule.notes == ()


def test_a_model_without_blocks_saves_nothing() -> None:
    empty = Geometry(
        tokens=5, protected=0, blocks=0, workload=Workload(fixed=7, per_token=(3,), per_pair=(0,))
    )
    with pytest.raises(UsageError, match=r"reduction_ratio: expected at most 0\.000"):
        plan(ScheduleRequest(reduction_ratio=0.2), empty)


def test_a_method_that_drops_can_save_more_than_one_that_merges() -> None:
    with pytest.raises(UsageError, match="expected at most"):
        plan(ScheduleRequest(reduction_ratio=0.7), geometry(50, 3))
    schedule = plan(ScheduleRequest(reduction_ratio=0.7), geometry(50, 3, dropping=True))
    assert 1 - written_out(schedule.tokens) / written_out((50,) * 4) == pytest.approx(0.7, abs=0.02)


def test_around_attention_the_share_of_tokens_is_solved() -> None:
    grids = (Grid(rows=8, columns=8, downsampling=1), Grid(rows=4, columns=4, downsampling=2))
    work = Workload(fixed=1000, per_token=(100, 300, 0), per_pair=(10, 20, 0))
    around = Geometry(
        tokens=64,
        protected=0,
        blocks=2,
        grids=grids,
        grid_cap=lambda grid: grid.tokens * 3 // 4 if grid.downsampling == 1 else 0,
        workload=work,
    )
    dense = 1000 + 64 * 100 + 64 * 64 * 10 + 16 * 300 + 256 * 20

    def saved(merged: int) -> float:
        left = 64 - merged
        return 1 - (1000 + left * 100 + left * left * 10 + 16 * 300 + 256 * 20) / dense

    schedule = plan(ScheduleRequest(reduction_ratio=0.5), around)

    assert schedule.merged[1] == 0
    assert schedule.merged[0] == min(range(49), key=lambda merged: abs(saved(merged) - 0.5))
    assert schedule.requested == "reduction-ratio 0.5"
    with pytest.raises(UsageError, match=rf"expected at most {saved(48):.3f}"):
        plan(ScheduleRequest(reduction_ratio=0.95), around)
