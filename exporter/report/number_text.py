"""Numbers and plain values as text: the same digits and signs in every table."""

import json
from collections.abc import Mapping

NOT_MEASURED = "\u2013"  # an en dash
TIMES = "\u00d7"


def percent(value: float | None) -> str:
    """`98.24 %`."""
    return NOT_MEASURED if value is None else f"{value:.2f} %"


def points(value: float) -> str:
    """A difference of percentages, with its sign: `-0.44`."""
    return f"{value:+.2f}"


def points_with_interval(value: float, interval: tuple[float, float]) -> str:
    """`-0.44 (-1.54 to +0.66)`."""
    low, high = interval
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def times(value: float) -> str:
    """A ratio: `1.37x`, with the multiplication sign."""
    return f"{value:.2f}{TIMES}"


def times_interval(interval: tuple[float, float]) -> str:
    """`1.30 to 1.41`."""
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def significant(value: float | None, digits: int = 4) -> str:
    """A number of any size in a given number of digits, whole ones without a point: `12.34`, `0.04559`, `1234`."""
    if value is None:
        return NOT_MEASURED
    if value != 0 and abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def gmacs(value: float) -> str:
    """10^9 multiply-accumulates: `13.10`, or `0.0334` below one."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def mmacs(value_gmacs: float) -> str:
    """10^6 multiply-accumulates of 10^9: `1,378`, or `5.46` with three digits below a hundred."""
    value = 1000 * value_gmacs
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def milliseconds(value: float | None) -> str:
    """`3.21`, with three digits or more."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def per_second(value: float | None) -> str:
    """`312`, or `31.2` below a hundred."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def megabytes(value_bytes: float | None) -> str:
    """`512` for 512,000,000 bytes; a digit more below ten."""
    if value_bytes is None:
        return NOT_MEASURED
    value = value_bytes / 1e6
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def error(value: float) -> str:
    """A small error: `1.4e-06`."""
    return f"{value:.1e}"


def count(value: int, noun: str) -> str:
    """`1 image`, `3 images`."""
    return f"{value:,} {noun}" + ("" if value == 1 else "s")


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """An object as names and texts, one level: inner objects as `outer inner`, lists joined, null as `none`."""
    rows: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows |= flat(value, f"{name} ")
        elif isinstance(value, list):
            rows[name] = ", ".join(map(_plain, value)) or "none"
        else:
            rows[name] = _plain(value)
    return rows


def _plain(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
