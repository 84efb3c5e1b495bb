"""From a share of the dense model's multiply-accumulates to the tokens that leave every block.

The counts are as even as whole numbers allow: every block removes r tokens and the first ones r + 1, or, around
attention, every site merges the same share of its tokens. More of them never cost more, so that halving finds the
nearest to what is asked.
"""

from bisect import bisect_left
from collections.abc import Callable

from exporter.errors import UsageError

_SEEN = 5e-4
"""A smaller difference of shares is not seen in what is printed."""


def nearest_step(ratio: float, saved: Callable[[int], float], steps: int) -> int:
    """The step whose saving is nearest to a ratio; of two that are as near, the one that saves less.

    Args:
        ratio: share of the dense multiply-accumulates, in 0..1.
        saved: share that a step of 0..steps saves; never falls, and 0 saves nothing.
        steps: of them, the last one saves most.

    Raises:
        UsageError: none saves that much.
    """
    above = bisect_left(range(steps + 1), ratio, key=saved)
    if above > steps:
        if ratio - saved(steps) > _SEEN:
            raise UsageError(
                f"schedule.reduction_ratio: expected at most {saved(steps):.3f}, the share of this model's "
                f"multiply-accumulates that the method can save, got {ratio:g}"
            )
        return steps
    if above and ratio - saved(above - 1) <= saved(above) - ratio:
        return above - 1
    return above


def even(count: int, blocks: int) -> tuple[int, ...]:
    """Tokens asked of each block where `count` leave in all: the same of each, one more of the first ones."""
    each, more = divmod(count, blocks) if blocks else (0, 0)
    return (each + 1,) * more + (each,) * (blocks - more)


def solved_note(ratio: float, saved: float, removed: tuple[int, ...]) -> str:
    """The line that says what was found."""
    return (
        f"schedule solved: {','.join(map(str, removed))} tokens leave the blocks and save {saved:.3f} of the dense "
        f"multiply-accumulates, {ratio:g} was asked"
    )
