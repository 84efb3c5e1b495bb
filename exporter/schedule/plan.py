"""From a request to token counts in every block: pure integers.

In: a `ScheduleRequest` and the model's geometry. Out: a `Schedule`, which the rewrite reads. How many tokens may leave
a block, and how many of them are dropped and not merged, is the method's to say.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import accumulate
from math import ceil
from operator import add, sub
from typing import Literal

from exporter.errors import UsageError
from exporter.schedule.around import Grid, merged_around, none_of_grid
from exporter.schedule.published import published
from exporter.schedule.reduction_ratio import even, nearest_step, solved_note
from exporter.schedule.request import ScheduleRequest
from exporter.schedule.workload import Workload

_EXACT = 1e-9  # of a product of a rate and a count, in which 0.7 * 10 is not 7
_RATIOS = 1000

Place = Literal["after-attention", "block-start", "block-end", "around-attention"]
"""Where tokens leave a block: between attention and MLP, before the block, after it, or for its attention only."""


def half_of_patches(tokens: int, protected: int) -> int:
    """Most tokens that can merge into another one at once (ToMe, section 3; PiToMe splits 2r tokens in halves)."""
    return max(tokens - protected, 0) // 2


def all_patches_but_one(tokens: int, protected: int) -> int:
    """Most tokens that can leave where those that stay need not be as many: one patch is left."""
    return max(tokens - protected - 1, 0)


def none_dropped(removed: int, block: int, blocks: int, **options: object) -> int:
    """How many of the tokens that leave a block are dropped: none, all of them merge."""
    return 0


def all_dropped(removed: int, block: int, blocks: int, **options: object) -> int:
    """How many of the tokens that leave a block are dropped: all."""
    return removed


def keep_of_current(rate: float, stage: int, initial: int, current: int, **options: object) -> int:
    """How many patches a keep rate leaves: this share of those that enter, rounded up (EViT)."""
    return ceil(rate * current - _EXACT)


def keep_of_initial(rate: float, stage: int, initial: int, current: int, **options: object) -> int:
    """How many patches a keep rate leaves: of the model's, the rate once per stage, rounded down (DynamicViT)."""
    return int(initial * rate ** (stage + 1) + _EXACT)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What a schedule has to know of a model and of the method that reduces it.

    Attributes:
        tokens: tokens that enter the first block, prefix tokens included.
        protected: prefix tokens, which never leave.
        blocks: attention blocks.
        cap: `cap(tokens, protected)`: most tokens that may leave a block.
        dropped: `dropped(removed, block, blocks)`: how many of them are dropped.
        keep: `keep(rate, stage, initial, current)`: patches that a keep rate leaves at its stage 0, 1, ...; `initial`
            patches enter the model, `current` the block.
        pairs: whether the request may say how many are dropped.
        grids: of every block, where tokens merge around attention; empty where each block has the tokens that the one
            before left.
        grid_cap: `grid_cap(grid)`: most tokens that may merge there.
        workload: the model's multiply-accumulates; None where a schedule does not depend on them.
    """

    tokens: int
    protected: int
    blocks: int
    cap: Callable[[int, int], int] = half_of_patches
    dropped: Callable[[int, int, int], int] = none_dropped
    keep: Callable[[float, int, int, int], int] = keep_of_current
    pairs: bool = False
    grids: tuple[Grid, ...] = ()
    grid_cap: Callable[[Grid], int] = none_of_grid
    workload: Workload | None = None

    def most(self, tokens: int) -> int:
        """How many of these tokens may leave a block."""
        return self.cap(tokens, self.protected)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Resolved token counts.

    Attributes:
        requested: the request as a phrase.
        merged: tokens merged in each block, length L.
        dropped: tokens dropped in each block, length L.
        tokens: tokens that enter each block, then the final count, length L + 1.
        notes: visible lines, one for each way in which the outcome differs from what was asked.
        around: whether the tokens of a block come back after its attention, so that all leave it that entered.
    """

    requested: str
    merged: tuple[int, ...]
    dropped: tuple[int, ...]
    tokens: tuple[int, ...]
    notes: tuple[str, ...] = ()
    around: bool = False

    @property
    def removed(self) -> tuple[int, ...]:
        """Tokens that leave each block, merged or dropped."""
        return tuple(map(add, self.merged, self.dropped))

    @property
    def segments(self) -> tuple[int, ...]:
        """Tokens in each segment of a `Workload`, length L + 1."""
        return (*self.left, self.tokens[-1]) if self.around else self.tokens

    @property
    def dense_segments(self) -> tuple[int, ...]:
        """Tokens in each segment where none leave."""
        return self.tokens if self.around else self.tokens[:1] * len(self.tokens)

    @property
    def left(self) -> tuple[int, ...]:
        """Tokens of each block after its reduction."""
        return tuple(map(sub, self.tokens, self.removed))

    @property
    def lists(self) -> ScheduleRequest:
        """The request that gives these counts, block by block."""
        dropped = self.dropped if any(self.dropped) else None
        return ScheduleRequest(r_per_layer=self.merged, drop_per_layer=dropped)

    @property
    def is_dense(self) -> bool:
        """Whether no token leaves at all."""
        return not any(self.removed)


def plan(request: ScheduleRequest, geometry: Geometry) -> Schedule:
    """Resolve a request for a model.

    Raises:
        UsageError: r is negative, an explicit list has the wrong length or cannot be met, a keep rate is for a block
            that there is not, no schedule was published under that name, or the method does not drop what the request
            says.
    """
    if geometry.grids:
        return (_saving_around if request.form == "reduction_ratio" else _around)(request, geometry)
    notes: tuple[str, ...] = ()
    if request.form != "r" and request.align is not None:
        raise UsageError(
            "schedule: --align moves a schedule that is spread by --r, and cannot move an explicit list"
        )
    match request.form:
        case "published":
            return _published(request, geometry)
        case "r_per_layer":
            removed = _explicit(_both(request, geometry), geometry)
        case "keep_per_layer":
            removed = _explicit(_removed_of_keeps(request.keep_per_layer or (), geometry), geometry)
        case "keep_rate":
            removed = _explicit(_removed_of_rate(request, geometry), geometry)
        case "slots_for":
            removed = _explicit(_all_slots_but_one(request, geometry), geometry)
            notes = ("schedule: slots are counted on images when this is built; shown are all but one",)
        case "reduction_ratio":
            removed, notes = _saving(request, geometry)
        case "ratio":
            raise UsageError(
                "schedule: --ratio is a share of tokens that come back after attention, and this method's do not; "
                "choose --method tomesd, or give --r"
            )
        case _:
            removed, notes = _spread(request, geometry)
    dropped = _dropped(request, geometry, removed)
    return Schedule(
        requested=request.describe(),
        merged=tuple(r - gone for r, gone in zip(removed, dropped, strict=True)),
        dropped=dropped,
        tokens=_counts(removed, geometry),
        notes=notes,
    )


def _around(request: ScheduleRequest, geometry: Geometry) -> Schedule:
    grids = geometry.grids
    merged, notes = merged_around(request, grids, tuple(map(geometry.grid_cap, grids)))
    return Schedule(
        requested=request.describe(),
        merged=merged,
        dropped=(0,) * len(merged),
        tokens=(*(grid.tokens for grid in grids), grids[-1].tokens),
        notes=notes,
        around=True,
    )


def _saving_around(request: ScheduleRequest, geometry: Geometry) -> Schedule:
    """The same share of every site's tokens, in steps of a thousandth."""
    ratio, workload = request.reduction_ratio or 0.0, geometry.workload
    assert workload is not None

    def at(step: int) -> Schedule:
        return _around(ScheduleRequest(ratio=step / _RATIOS), geometry)

    def saved(step: int) -> float:
        return workload.saved(at(step).segments, at(0).segments)

    found = nearest_step(ratio, saved, _RATIOS)
    notes = (solved_note(ratio, saved(found), at(found).merged),) if found else ()
    return replace(at(found), requested=request.describe(), notes=notes)


def _published(request: ScheduleRequest, geometry: Geometry) -> Schedule:
    assert request.published is not None
    found = published(request.published)
    lists = ScheduleRequest(r_per_layer=found.merged, drop_per_layer=found.dropped)
    notes = (
        f"schedule {found.name} was published for {found.tokens} tokens, and this model has {geometry.tokens}",
    )
    return replace(
        plan(lists, geometry),
        requested=request.describe(),
        notes=() if geometry.tokens == found.tokens else notes,
    )


def spread(r: int, inflect: float, blocks: int) -> tuple[int, ...]:
    """ToMe's rule (parse_r in its appendix): `blocks` integers whose mean is about r, along a line.

    min = int(r * (1 - inflect)), max = 2r - min, and block l gets int(min + (max - min) / (L - 1) * l), in
    exact arithmetic. An inflect of 0 is constant, -1 decreasing to 0, 1 increasing from 0.
    """
    first = int(r * (1 - inflect))
    last = 2 * r - first
    return tuple(first + (last - first) * block // max(blocks - 1, 1) for block in range(blocks))


_INFLECT = {"constant": 0, "decreasing": -1, "increasing": 1}


def _spread(request: ScheduleRequest, geometry: Geometry) -> tuple[tuple[int, ...], tuple[str, ...]]:
    if request.r < 0:
        raise UsageError(f"schedule: expected r >= 0, got {request.r}; use --r 0 for the dense model")
    if request.align is not None and request.align < 1:
        raise UsageError(f"schedule: expected --align >= 1, got {request.align}")
    asked = spread(request.r, _INFLECT[request.kind], geometry.blocks)
    possible = _capped(asked, geometry)
    notes = _cap_note(asked, possible)
    if request.align is None:
        return possible, notes
    aligned = _aligned(possible, geometry, request.align)
    return aligned, notes + _align_note(possible, aligned, request.align)


def _saving(request: ScheduleRequest, geometry: Geometry) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The even counts whose saving of multiply-accumulates is nearest to what is asked."""
    ratio, workload = request.reduction_ratio or 0.0, geometry.workload
    assert workload is not None

    def removed(count: int) -> tuple[int, ...]:
        return _capped(even(count, geometry.blocks), geometry)

    def saved(count: int) -> float:
        return workload.saved(_counts(removed(count), geometry), _counts(removed(0), geometry))

    found = nearest_step(ratio, saved, geometry.blocks * geometry.most(geometry.tokens))
    return removed(found), (solved_note(ratio, saved(found), removed(found)),) if found else ()


def _counts(removed: Iterable[int], geometry: Geometry) -> tuple[int, ...]:
    return tuple(accumulate(removed, lambda count, r: count - r, initial=geometry.tokens))


def _capped(asked: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    removed, tokens = [], geometry.tokens
    for r in asked:
        removed.append(min(r, geometry.most(tokens)))
        tokens -= removed[-1]
    return tuple(removed)


def _cap_note(asked: tuple[int, ...], possible: tuple[int, ...]) -> tuple[str, ...]:
    if asked == possible:
        return ()
    first = next(block for block, (a, p) in enumerate(zip(asked, possible, strict=True)) if a != p)
    return (
        f"schedule capped: from block {first} on {sum(possible[first:])} tokens are removed where "
        f"{sum(asked[first:])} were asked, the most that the method allows ({_listed(possible)})",
    )


def _align_note(asked: tuple[int, ...], aligned: tuple[int, ...], multiple: int) -> tuple[str, ...]:
    if asked == aligned:
        return ()
    return (
        f"schedule aligned: {sum(aligned)} tokens are removed where {sum(asked)} were asked, so that the counts that "
        f"change are multiples of {multiple} ({_listed(aligned)})",
    )


def _aligned(asked: tuple[int, ...], geometry: Geometry, multiple: int) -> tuple[int, ...]:
    """Move every count that a reduction leaves to the multiple nearest to what was asked (the larger on a tie)."""
    removed, tokens, wanted = [], geometry.tokens, geometry.tokens
    for r in asked:
        wanted -= r
        least = tokens - geometry.most(tokens)
        nearest = (wanted + multiple // 2) // multiple * multiple
        lowest_reachable = -(-least // multiple) * multiple
        after = max(nearest, lowest_reachable)
        removed.append(tokens - after if r and after < tokens else 0)
        tokens -= removed[-1]
    return tuple(removed)


def _removed_of_keeps(keeps: tuple[int, ...] | tuple[float, ...], geometry: Geometry) -> tuple[int, ...]:
    removed, tokens = [], geometry.tokens
    for keep in keeps:
        removed.append(tokens - keep if isinstance(keep, int) else int(tokens * (1 - keep) + 1e-9))
        tokens -= int(removed[-1])
    return tuple(int(r) for r in removed)


def _explicit(removed: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    if len(removed) != geometry.blocks:
        raise UsageError(
            f"schedule: expected one entry for each of the model's {geometry.blocks} blocks, got {len(removed)}"
        )
    for block, (r, tokens) in enumerate(zip(removed, _counts(removed, geometry), strict=False)):
        if not 0 <= r <= geometry.most(tokens):
            raise UsageError(
                f"schedule: block {block} has {tokens} tokens ({geometry.protected} protected) and can remove 0 to "
                f"{geometry.most(tokens)}, got {r}; lower this entry or remove less before it"
            )
    return removed


def _both(request: ScheduleRequest, geometry: Geometry) -> tuple[int, ...]:
    """What leaves each block, merged or dropped."""
    merged = request.r_per_layer or (0,) * len(request.drop_per_layer or ())
    dropped = request.drop_per_layer or (0,) * len(merged)
    if len(merged) != len(dropped):
        raise UsageError(
            f"schedule: expected one entry per block in both lists, got {len(merged)} of tokens that merge and "
            f"{len(dropped)} of tokens that are dropped"
        )
    return tuple(r + gone for r, gone in zip(merged, dropped, strict=True))


def _dropped(request: ScheduleRequest, geometry: Geometry, removed: tuple[int, ...]) -> tuple[int, ...]:
    own = tuple(geometry.dropped(r, block, geometry.blocks) for block, r in enumerate(removed))
    option, asked = "--drop-per-layer", request.drop_per_layer
    if request.drop_share is not None:
        option, asked = "--drop-share", tuple(int(r * request.drop_share + 0.5) for r in removed)
    if asked is None or asked == own:
        return own
    if not geometry.pairs:
        block = next(block for block, (gone, r) in enumerate(zip(asked, own, strict=True)) if gone != r)
        raise UsageError(
            f"schedule: of the {removed[block]} tokens that leave block {block} this method drops {own[block]}, got "
            f"{asked[block]} by {option}; choose a method that drops as many as it is given, or leave it out"
        )
    return asked


def _removed_of_rate(request: ScheduleRequest, geometry: Geometry) -> tuple[int, ...]:
    rate = request.keep_rate
    assert rate is not None
    initial = current = geometry.tokens - geometry.protected
    removed = [0] * geometry.blocks
    for stage, block in enumerate(_places(request, geometry.blocks)):
        kept = min(geometry.keep(rate, stage, initial, current), current)
        removed[block], current = current - kept, kept
    return tuple(removed)


def _all_slots_but_one(request: ScheduleRequest, geometry: Geometry) -> tuple[int, ...]:
    """One token leaves each place, so that the method decides there and nearly nothing of what it keeps is lost."""
    places = _places(request, geometry.blocks)
    return tuple(int(block in places) for block in range(geometry.blocks))


def _places(request: ScheduleRequest, blocks: int) -> tuple[int, ...]:
    """The blocks of `at`, ascending."""
    places = request.at or tuple(dict.fromkeys(blocks * quarter // 4 for quarter in (1, 2, 3)))
    if list(places) != sorted(set(places)) or places[-1] >= blocks:
        raise UsageError(
            f"schedule: --at: expected ascending block indices from 0 to {blocks - 1}, got {_listed(places)}"
        )
    return places


def _listed(removed: tuple[int, ...]) -> str:
    return ",".join(map(str, removed))
