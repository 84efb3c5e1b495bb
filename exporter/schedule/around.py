"""How many tokens merge before each attention and are restored after it: every site apart, by its own grid.

In: a `ScheduleRequest`, and of every site its grid and the most tokens that the method merges there. Out: counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.errors import UsageError
from exporter.schedule.request import ScheduleRequest

_EXACT = 1e-9  # of a product of a ratio and a count, in which 0.7 * 10 is not 7


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The feature map whose cells are the tokens of an attention.

    Attributes:
        rows: cells from top to bottom.
        columns: cells from left to right.
        downsampling: how many times smaller its sides are than those of the model's input, rounded up.
    """

    rows: int
    columns: int
    downsampling: int

    @property
    def tokens(self) -> int:
        """Cells."""
        return self.rows * self.columns


def none_of_grid(grid: Grid, **options: object) -> int:
    """How many tokens of a grid can merge around an attention: none, for a method that merges elsewhere."""
    return 0


def merged_around(
    request: ScheduleRequest, grids: Sequence[Grid], most: Sequence[int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Counts for every site, and visible lines about where they differ from what was asked.

    A ratio counts at the sites where the method merges at all; the others keep their tokens.

    Args:
        request: a ratio, a list, or r = 0.
        grids: of every site.
        most: how many tokens the method merges there at most.

    Raises:
        UsageError: another form, a list that does not fit, or a ratio where the method merges at no site.
    """
    match request.form:
        case "ratio":
            return _shared(request.ratio or 0.0, grids, most)
        case "r_per_layer" if request.drop_per_layer is None:
            return _listed(request.r_per_layer or (), grids, most), ()
        case "r" if request.is_dense:
            return (0,) * len(grids), ()
        case _:
            raise UsageError(
                f"schedule: a method that merges around attention takes --ratio, a share of the tokens of every site, "
                f"or --r-per-layer, got {request.describe()}"
            )


def _shared(
    ratio: float, grids: Sequence[Grid], most: Sequence[int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    if ratio and not any(most):
        levels = ", ".join(map(str, sorted({grid.downsampling for grid in grids})))
        raise UsageError(
            f"schedule: the method merges at none of the model's {len(grids)} self-attentions, which run on feature "
            f"maps that are smaller than its input by {levels}; let it go deeper (--method-option max_downsample=N)"
        )
    asked = tuple(
        int(grid.tokens * ratio + _EXACT) if cap else 0 for grid, cap in zip(grids, most, strict=True)
    )
    merged = tuple(map(min, asked, most))
    capped = sum(got < wanted for got, wanted in zip(merged, asked, strict=True))
    note = (
        f"schedule capped: at {capped} of {len(grids)} attentions fewer tokens merge than --ratio {ratio:g} asks for, "
        "the most that the method allows"
    )
    return merged, (note,) if capped else ()


def _listed(merged: tuple[int, ...], grids: Sequence[Grid], most: Sequence[int]) -> tuple[int, ...]:
    if len(merged) != len(grids):
        raise UsageError(
            f"schedule: expected one entry for each of the model's {len(grids)} self-attentions, got {len(merged)}"
        )
    for site, (r, grid, cap) in enumerate(zip(merged, grids, most, strict=True)):
        if not 0 <= r <= cap:
            raise UsageError(
                f"schedule: attention {site} has {grid.tokens} tokens and can merge 0 to {cap}, got {r}; "
                "lower this entry"
            )
    return merged
