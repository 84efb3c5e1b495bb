"""Confidence intervals, and ratios with one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any


class _LowerFirst:
    """Makes pydantic refuse an interval whose bounds are in the wrong order."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(_lower_first, handler(source))


def _lower_first(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("expected the lower bound first")
    return interval


Interval = Annotated[tuple[float, float], _LowerFirst()]
"""Lower and upper bound of a 95 % confidence interval."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio, and the interval that holds the true one with 95 % confidence."""

    value: float
    interval: Interval

    @property
    def relative_width(self) -> float:
        """Width of the interval as a share of the value."""
        return (self.interval[1] - self.interval[0]) / self.value
