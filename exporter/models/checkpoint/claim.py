"""Tensors in a file of weights that are not the model's but a method's: kept apart while the file is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Names in a file of weights that belong to methods, by the first part of the name, such as `score_predictor`.

    Attributes:
        method: the method that is asked for.
        prefix: first part of the names of the tensors that it reads; None where it reads none.
        others: by first part of the names, the method that reads such tensors.
    """

    method: str
    prefix: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)


_CLAIM: ContextVar[tuple[Claims, "dict[str, Tensor]"] | None] = ContextVar("claim", default=None)


@contextmanager
def claiming(claims: Claims | None) -> Iterator["dict[str, Tensor]"]:
    """Keep the tensors that a method reads out of every checkpoint that is read meanwhile.

    Args:
        claims: whose names; what a training wrapper put before a name is taken off. None for no tensor.

    Returns:
        The tensors by name, filled when a file is read.
    """
    found: dict[str, Tensor] = {}
    token = _CLAIM.set(None if claims is None else (claims, found))
    try:
        yield found
    finally:
        _CLAIM.reset(token)


def unclaimed(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The tensors of a file that are not claimed; the others are handed over."""
    claim = _CLAIM.get()
    if claim is None or (prefix := claim[0].prefix) is None:
        return state
    found = claim[1]
    places = {name: _place(name, prefix) for name in state}
    found |= {name[place:]: state[name] for name, place in places.items() if place >= 0}
    return {name: state[name] for name, place in places.items() if place < 0}


def read_by_another(names: list[str]) -> str | None:
    """Which method reads all of these tensors, where it is not the one that is asked for, in one line."""
    claim = _CLAIM.get()
    if claim is None:
        return None
    for prefix, method in claim[0].others.items():
        if names and all(_place(name, prefix) >= 0 for name in names):
            return (
                f"{prefix}.* are parts that method {method} learned with the model, and method {claim[0].method} does "
                f"not read them: give --method {method}, or a checkpoint without them"
            )
    return None


def _place(name: str, prefix: str) -> int:
    """Where in a name the prefix is one of its parts, -1 where it is not."""
    return f".{name}".find(f".{prefix}.")
