"""Tensors in a file of weights that are not the model's but a method's: kept apart while the file is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_CLAIM: ContextVar[tuple[str, "dict[str, Tensor]"] | None] = ContextVar("claim", default=None)


@contextmanager
def claiming(prefix: str | None) -> Iterator["dict[str, Tensor]"]:
    """Keep the tensors of some names out of every checkpoint that is read meanwhile.

    Args:
        prefix: first parts of a name, such as `score_predictor`; what a training wrapper put before it is taken off.
            None for no tensor.

    Returns:
        The tensors by name, filled when a file is read.
    """
    found: dict[str, Tensor] = {}
    token = _CLAIM.set((f"{prefix}.", found) if prefix else None)
    try:
        yield found
    finally:
        _CLAIM.reset(token)


def unclaimed(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The tensors of a file that are not claimed; the others are handed over."""
    claim = _CLAIM.get()
    if claim is None:
        return state
    prefix, found = claim
    places = {name: f".{name}".find(f".{prefix}") for name in state}
    found |= {name[place:]: state[name] for name, place in places.items() if place >= 0}
    return {name: state[name] for name, place in places.items() if place < 0}
