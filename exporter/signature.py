"""Inputs and outputs by name: what a model takes and returns, and what every program and engine made of it keeps.

Below every room but `errors`; no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from exporter.errors import UsageError

MASK = "attention_mask"
"""The input of a text encoder that says which tokens are there."""

Array = np.ndarray[Any, np.dtype[Any]]

Inputs = Array | Mapping[str, Array]
"""Arrays by name, each with one row per item; or the array itself, where there is one input."""


class Tensor(Protocol):
    """An array of numpy or a tensor of torch."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of its axes."""
        ...

    @property
    def dtype(self) -> Any:
        """Its element type."""
        ...


T = TypeVar("T", bound=Tensor)


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output: its name, numpy dtype name, and shape, where a free axis is a word such as "batch"."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What goes in and what comes out.

    Attributes:
        inputs: in the order of the call; the first axis of each is the batch.
        outputs: in the order of the results.
        masks: names of the inputs that say which tokens of a text are there: ones, and then zeros for padding.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    masks: tuple[str, ...] = ()

    @property
    def batch(self) -> int | str:
        """The static batch, or a word where it is free."""
        return self.inputs[0].shape[0]

    @property
    def output_names(self) -> list[str]:
        """In order."""
        return [spec.name for spec in self.outputs]

    def with_outputs(self, outputs: tuple[TensorSpec, ...]) -> "Signature":
        """The same inputs with other outputs."""
        return replace(self, outputs=outputs)

    def with_matches(self, count: int) -> "Signature":
        """The same, with the matches of `count` blocks after the outputs."""
        matches = (
            TensorSpec(name=f"match_{index}", dtype="int64", shape=(self.batch, "tokens"))
            for index in range(count)
        )
        return self.with_outputs((*self.outputs, *matches))

    def inputs_of(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The inputs among arrays that hold outputs as well, such as a sample."""
        return {spec.name: arrays[spec.name] for spec in self.inputs}

    def named(self, given: T | Mapping[str, T]) -> dict[str, T]:
        """Inputs by name, in the order of the call, checked.

        Args:
            given: (n, ...) for every input, by name; or one alone, where there is one input.

        Raises:
            UsageError: other names, another shape or dtype, no rows, or not as many in each; or a mask that is not ones
                and then zeros.
        """
        arrays = given if isinstance(given, Mapping) else self._only(given)
        names = [spec.name for spec in self.inputs]
        if set(arrays) != set(names):
            raise UsageError(
                f"inputs: expected {', '.join(names)}, got {', '.join(map(str, arrays)) or 'nothing'}"
            )
        for spec in self.inputs:
            _check(arrays[spec.name], spec)
        for name in self.masks:
            _check_mask(name, arrays[name])
        rows = {name: arrays[name].shape[0] for name in names}
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise UsageError(f"inputs: expected as many rows in each, got {counts}")
        return {name: arrays[name] for name in names}

    def _only(self, given: T) -> dict[str, T]:
        if len(self.inputs) != 1:
            names = ", ".join(spec.name for spec in self.inputs)
            raise UsageError(f"inputs: expected {names} by name, got one array")
        return {self.inputs[0].name: given}


def _check_mask(name: str, mask: Any) -> None:
    begins, rises = mask[:, 0] == 1, mask[:, 1:] > mask[:, :-1]
    if not begins.all() or rises.any():
        raise UsageError(
            f"{name}: expected ones for the tokens of every text, and then zeros for its padding"
        )


def _check(array: Tensor, spec: TensorSpec) -> None:
    expected, got = spec.shape[1:], tuple(array.shape)
    if len(got) != len(expected) + 1 or got[1:] != expected or got[0] == 0:
        shape = "x".join(map(str, expected))
        raise UsageError(f"{spec.name}: expected at least one row of {shape}, got an array {got}")
    dtype = str(array.dtype).removeprefix("torch.")
    if dtype != spec.dtype:
        raise UsageError(f"{spec.name}: expected {spec.dtype}, got {dtype}")
