"""The one reader of JSON that others wrote: bounded numbers, no NaN, no nesting without end.

Below every room. In: the bytes of a file. Out: dicts, lists and scalars, in which every number fits into 64 bits. What
the keys mean is for their readers to check.
"""

import json
import math
from collections.abc import Iterator

from exporter.errors import BundleError

LARGEST = 2.0**63
"""What no number of ours comes near, and every number is computed with without overflow up to."""


def parse_json(data: bytes, where: str, expected: str, remedy: str) -> object:
    """The value that a file of JSON holds.

    Args:
        data: the file's content.
        where: its name, for messages.
        expected: what it should be, such as `a bundle's manifest`.
        remedy: how to get a sound one.

    Raises:
        BundleError: it is not JSON, nested too deeply, or holds a number that is not finite or beyond 64 bits.
    """
    try:
        tree: object = json.loads(data)
        found = next(_beyond(tree, ""), None)
    except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError, too
        raise BundleError(
            f"{where}: expected {expected}, got text that is not sound JSON; {remedy}"
        ) from None
    if found is not None:
        path, number = found
        shown = str(number) if len(str(number)) <= 40 else f"{str(number)[:37]}..."
        raise BundleError(f"{where}: {path}: expected a number within 64 bits, got {shown}; {remedy}")
    return tree


def _beyond(tree: object, path: str) -> Iterator[tuple[str, int | float]]:
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from _beyond(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list):
        for place, inner in enumerate(tree):
            yield from _beyond(inner, f"{path}[{place}]")
    elif isinstance(tree, int | float) and not _is_bounded(tree):
        yield path or "top level", tree


def _is_bounded(number: int | float) -> bool:
    return (isinstance(number, int) or math.isfinite(number)) and -LARGEST <= number <= LARGEST
