"""From a request to tokens merged in every block: pure integers.

In: a `ScheduleRequest` and the model's geometry. Out: a `Schedule`, the only thing that the rewrite reads. A token
merges into another one, and protected tokens never do, so a block with T tokens merges at most (T - protected) // 2
(ToMe, section 3; PiToMe splits 2r mergeable tokens in halves, which gives the same cap).
"""

from dataclasses import dataclass
from itertools import accumulate

from exporter.errors import UsageError
from exporter.schedule.request import ScheduleRequest


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What a schedule has to know of a model.

    Attributes:
        tokens: tokens that enter the first block, prefix tokens included.
        protected: prefix tokens, which never merge.
        blocks: attention blocks.
    """

    tokens: int
    protected: int
    blocks: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Resolved token counts.

    Attributes:
        requested: the request as a phrase.
        merged: tokens merged in each block, length L.
        tokens: tokens that enter each block, then the final count, length L + 1.
        notes: visible lines, one for each way in which the outcome differs from what was asked.
    """

    requested: str
    merged: tuple[int, ...]
    tokens: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_dense(self) -> bool:
        """Whether nothing is merged at all."""
        return not any(self.merged)


def plan(request: ScheduleRequest, geometry: Geometry) -> Schedule:
    """Resolve a request for a model.

    Raises:
        UsageError: r is negative, or an explicit list has the wrong length or cannot be met.
    """
    notes: tuple[str, ...] = ()
    explicit = request.r_per_layer is not None or request.keep_per_layer is not None
    if explicit and request.align is not None:
        raise UsageError(
            "schedule: --align moves a schedule that is spread by --r, and cannot move an explicit list"
        )
    if request.r_per_layer is not None:
        merged = _explicit(request.r_per_layer, geometry)
    elif request.keep_per_layer is not None:
        merged = _explicit(_merges_of_keeps(request.keep_per_layer, geometry), geometry)
    else:
        merged, notes = _spread(request, geometry)
    tokens = tuple(accumulate(merged, lambda count, r: count - r, initial=geometry.tokens))
    return Schedule(requested=request.describe(), merged=merged, tokens=tokens, notes=notes)


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


def _cap(tokens: int, geometry: Geometry) -> int:
    return max(tokens - geometry.protected, 0) // 2


def _capped(asked: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    merged, tokens = [], geometry.tokens
    for r in asked:
        merged.append(min(r, _cap(tokens, geometry)))
        tokens -= merged[-1]
    return tuple(merged)


def _cap_note(asked: tuple[int, ...], possible: tuple[int, ...]) -> tuple[str, ...]:
    if asked == possible:
        return ()
    first = next(block for block, (a, p) in enumerate(zip(asked, possible, strict=True)) if a != p)
    return (
        f"schedule capped: a block merges at most half of its unprotected tokens, so from block {first} on "
        f"{sum(possible[first:])} tokens merge where {sum(asked[first:])} were asked ({_listed(possible)})",
    )


def _align_note(asked: tuple[int, ...], aligned: tuple[int, ...], multiple: int) -> tuple[str, ...]:
    if asked == aligned:
        return ()
    return (
        f"schedule aligned: {sum(aligned)} tokens merge where {sum(asked)} were asked, so that the counts after a "
        f"merge are multiples of {multiple} ({_listed(aligned)})",
    )


def _aligned(asked: tuple[int, ...], geometry: Geometry, multiple: int) -> tuple[int, ...]:
    """Move every count that follows a merge to the multiple nearest to what was asked (the larger on a tie)."""
    merged, tokens, wanted = [], geometry.tokens, geometry.tokens
    for r in asked:
        wanted -= r
        least = tokens - _cap(tokens, geometry)
        nearest = (wanted + multiple // 2) // multiple * multiple
        lowest_reachable = -(-least // multiple) * multiple
        after = max(nearest, lowest_reachable)
        merged.append(tokens - after if r and after < tokens else 0)
        tokens -= merged[-1]
    return tuple(merged)


def _merges_of_keeps(keeps: tuple[int, ...] | tuple[float, ...], geometry: Geometry) -> tuple[int, ...]:
    merged, tokens = [], geometry.tokens
    for keep in keeps:
        merged.append(tokens - keep if isinstance(keep, int) else int(tokens * (1 - keep) + 1e-9))
        tokens -= int(merged[-1])
    return tuple(int(r) for r in merged)


def _explicit(merged: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    if len(merged) != geometry.blocks:
        raise UsageError(
            f"schedule: expected one entry for each of the model's {geometry.blocks} blocks, got {len(merged)}"
        )
    tokens = geometry.tokens
    for block, r in enumerate(merged):
        if not 0 <= r <= _cap(tokens, geometry):
            raise UsageError(
                f"schedule: block {block} has {tokens} tokens ({geometry.protected} protected) and can merge 0 to "
                f"{_cap(tokens, geometry)}, got {r}; lower this entry or merge less before it"
            )
        tokens -= r
    return merged


def _listed(merged: tuple[int, ...]) -> str:
    return ",".join(map(str, merged))
