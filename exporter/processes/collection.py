"""How often a process that makes engines looks for unreachable objects."""

import gc

_ALLOCATIONS = 50_000
"""Between two searches: libraries make a million objects that stay, and searching them took a tenth of an export."""


def collect_less_often() -> None:
    """For this process; what is unreachable is still found, a little later."""
    gc.set_threshold(_ALLOCATIONS)
