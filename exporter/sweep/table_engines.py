"""What to measure for a latency table, and what its steps allow.

Before `latency`: the engines that make its counts distinguishable. After it: schedules moved to the tops of its steps,
where more tokens cost nothing.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from exporter.errors import UsageError
from exporter.schedule import Geometry, Schedule, ScheduleRequest, plan
from exporter.sweep.latency import LatencyTable


def table_engines(geometry: Geometry, counts: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Which engines to build and measure so that `fit` can tell these counts apart: explicit merges per block.

    One engine per count merges down to it in as few blocks as the cap allows and stays there. Two more do the same
    down to near the middle and the smallest count, and then merge one token per block, which shows what a merge costs.

    Args:
        geometry: of the model.
        counts: to be told apart; the dense count is added if missing.

    Raises:
        UsageError: a count cannot be reached.
    """
    wanted = sorted({*counts, geometry.tokens}, reverse=True)
    direct = [_merges(geometry, wanted, count, 0) for count in wanted]
    smaller = wanted[1:]
    ends = (smaller[len(smaller) // 2], smaller[-1]) if smaller else ()
    many = [_merges(geometry, wanted, count, 1) for count in ends]
    return tuple(dict.fromkeys([*direct, *many]))


def table_counts(geometry: Geometry, counts: int = 8) -> tuple[int, ...]:
    """Evenly spread counts for a latency table, from dense down to an eighth; multiples of 8 where kernels have tiles.

    The lowest one is reached within two thirds of the blocks, so that the others show its time.

    Raises:
        UsageError: fewer than two.
    """
    if counts < 2:
        raise UsageError(f"latency table: expected at least 2 token counts, got {counts}")
    reached = geometry.tokens
    for _ in range(max(1, geometry.blocks * 2 // 3)):
        reached = _least_after(reached, geometry)
    lowest = max(geometry.tokens // 8, reached)
    exact = np.linspace(geometry.tokens, lowest, counts)[1:]
    tile = 8 if geometry.tokens > 8 * counts else 1
    tiled = (max(round(count / tile) * tile, lowest) for count in exact)
    return (geometry.tokens, *sorted({count for count in tiled if count < geometry.tokens}, reverse=True))


def lift(schedule: Schedule, table: LatencyTable, geometry: Geometry) -> Schedule:
    """The same schedule with every count raised to the top of its step, as far as later merges can make up for it.

    No count falls, no block merges that did not, and the predicted latency does not rise. Where the schedule says how
    many of the tokens that leave are dropped, each block drops as large a share as before.

    Raises:
        UsageError: a count lies outside of what was measured.
    """
    tokens = list(schedule.tokens)
    for block in reversed(range(1, len(tokens))):
        top = min(table.plateau_top(tokens[block]), geometry.tokens)
        if block == len(schedule.removed):
            tokens[block] = top
        elif schedule.removed[block] == 0:
            tokens[block] = tokens[block + 1]
        else:
            reachable = range(top, tokens[block + 1] - 1, -1)
            tokens[block] = next(
                each for each in reachable if each - geometry.most(each) <= tokens[block + 1]
            )
    removed = tuple(before - after for before, after in pairwise(tokens))
    if not geometry.pairs:
        return plan(ScheduleRequest(r_per_layer=removed), geometry)
    before = zip(removed, schedule.dropped, schedule.removed, strict=True)
    dropped = tuple(r * gone // left if left else 0 for r, gone, left in before)
    merged = tuple(r - gone for r, gone in zip(removed, dropped, strict=True))
    return plan(ScheduleRequest(r_per_layer=merged, drop_per_layer=dropped), geometry)


def _merges(geometry: Geometry, wanted: Sequence[int], count: int, then: int) -> tuple[int, ...]:
    """Merges per block: fast down to the count, or so far above it that `then` per block end on it.

    Where the cap is in the way, the way down stops at wanted counts, so that it measures no others, unless the
    blocks are too few for that.
    """
    for stops in (wanted, ()):
        tokens = _way_down(geometry, stops, count, then)
        if tokens[-1] == count:
            return tuple(before - after for before, after in pairwise(tokens))
    raise UsageError(
        f"latency table: {count} tokens cannot be reached from {geometry.tokens} ({geometry.protected} "
        f"protected) in {geometry.blocks} blocks; a method limits how many leave a block"
    )


def _way_down(geometry: Geometry, stops: Sequence[int], count: int, then: int) -> list[int]:
    tokens = [geometry.tokens]
    for later in reversed(range(geometry.blocks)):
        here = tokens[-1]
        goal = min(count + then * later, here - min(then, here - count))
        least = _least_after(here, geometry)
        if goal < least:
            goal = min((each for each in stops if least <= each < here), default=least)
        tokens.append(goal)
    return tokens


def _least_after(tokens: int, geometry: Geometry) -> int:
    return tokens - geometry.most(tokens)
