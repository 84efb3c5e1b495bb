"""How a program's weights follow from its model's: recorded while the compiler computes them, and replayed later.

In: a model's parameters, and whatever the compiler does to them (scales folded in, rows moved, types narrowed). Out: a
small program from the parameters to the tensors that an emitted program holds.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from exporter.errors import InternalError


@dataclass(frozen=True)
class _Value:
    """A tensor of the recording, by number."""

    number: int


@dataclass(frozen=True, kw_only=True)
class _Step:
    operator: Any
    arguments: Any
    results: tuple[int, ...]


class Recording(TorchDispatchMode):
    """Notes down every operation on a model's parameters, and on what was computed from them.

    Tensors are told apart by where they lie in memory, since views and parameters are made of each other without any
    computation. So all of them are kept until the recording goes.
    """

    def __init__(self, sources: Mapping[str, Tensor]) -> None:
        """Begin.

        Args:
            sources: the parameters, by name.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = tuple(sources)
        self._values = list(sources.values())
        self._numbers = {_place(value): number for number, value in enumerate(self._values)}
        self._steps: list[_Step] = []
        self._paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and note it down if it computes anything from a parameter."""
        given = (args, kwargs or {})
        results = func(*args, **given[1])
        if self._paused or types or not any(self.knows(each) for each in tree_leaves(given)):
            return results
        fresh = [each for each in tree_leaves(results) if isinstance(each, Tensor) and not self.knows(each)]
        if func._schema.is_mutable:
            raise InternalError(f"a recording of weights saw {func}, which changes them in place")
        if fresh:
            arguments = tree_map(self._reference, given)
            self._steps.append(
                _Step(operator=func, arguments=arguments, results=self._add(tree_leaves(results)))
            )
        return results

    @contextmanager
    def running(self) -> Iterator[None]:
        """Record in the block, but not where graphs are traced or run: what activations become is no weight."""
        export, interpret = torch.export.export, fx.Interpreter.run

        def exported(*args: Any, **kwargs: Any) -> ExportedProgram:
            with _disable_current_modes():  # which is faster than to pause
                return export(*args, **kwargs)

        def interpreted(*args: Any, **kwargs: Any) -> Any:
            before, self._paused = self._paused, True
            try:
                return interpret(*args, **kwargs)
            finally:
                self._paused = before

        with (
            mock.patch.object(torch.export, "export", exported),
            mock.patch.object(fx.Interpreter, "run", interpreted),
            self,
        ):
            yield

    def knows(self, value: Any) -> bool:
        """Whether a value is a parameter, or a tensor that was computed from parameters."""
        return type(value) in (Tensor, nn.Parameter) and _place(value) in self._numbers

    def derivation(self, wanted: Sequence[Tensor]) -> tuple[tuple[str, ...], ExportedProgram]:
        """The computation of tensors that the recording knows.

        Returns:
            Names of the parameters that it reads, and a program from those to the tensors, which holds none of them.

        Raises:
            InternalError: what was recorded computes something else.
        """
        numbers = [self._numbers[_place(each)] for each in wanted]
        steps, needed = list[_Step](), set(numbers)
        for step in reversed(self._steps):
            if needed.intersection(step.results):
                steps.insert(0, step)
                needed.update(each.number for each in tree_leaves(step.arguments) if isinstance(each, _Value))
        count = len(self._names)
        computed = {number for step in steps for number in step.results}
        sources = sorted(number for number in needed if number < count)
        constants = {number: self._values[number] for number in needed - computed if number >= count}
        examples = tuple(self._values[number].detach() for number in sources)
        replay = _Replay(sources, constants, steps, numbers)
        with torch.no_grad():
            if not all(map(_same, replay(*examples), wanted)):
                raise InternalError("a recording of weights, replayed, gives other weights")
            program = torch.export.export(replay, examples)
        program._example_inputs = None
        return tuple(self._names[number] for number in sources), program

    def _add(self, results: Sequence[Tensor]) -> tuple[int, ...]:
        numbers = []
        for tensor in results:
            number = self._numbers.setdefault(_place(tensor), len(self._values))
            if number == len(self._values):
                self._values.append(tensor)
            numbers.append(number)
        return tuple(numbers)

    def _reference(self, value: Any) -> Any:
        """A tensor's number; one from elsewhere is kept as it is now."""
        if not isinstance(value, Tensor):
            return value
        if not self.knows(value):
            self._values.append(value.clone())
            return _Value(len(self._values) - 1)
        return _Value(self._numbers[_place(value)])


class _Replay(nn.Module):
    def __init__(
        self,
        sources: Sequence[int],
        constants: Mapping[int, Tensor],
        steps: Sequence[_Step],
        wanted: Sequence[int],
    ) -> None:
        super().__init__()
        self._sources, self._constants, self._steps, self._wanted = sources, tuple(constants), steps, wanted
        for number, value in constants.items():
            self.register_buffer(f"constant_{number}", value)

    def forward(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        """The wanted tensors."""
        values = dict(zip(self._sources, parameters, strict=True))
        values |= {number: getattr(self, f"constant_{number}") for number in self._constants}
        for step in self._steps:
            args, kwargs = tree_map(
                lambda each: values[each.number] if isinstance(each, _Value) else each, step.arguments
            )
            values.update(zip(step.results, tree_leaves(step.operator(*args, **kwargs)), strict=True))
        return tuple(values[number] for number in self._wanted)


def _place(tensor: Tensor) -> Hashable:
    storage = tensor.untyped_storage().data_ptr()
    return storage, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bytes, of any type."""
    one_bytes, other_bytes = (each.contiguous().view(-1).view(torch.uint8) for each in (one, other))
    return one.shape == other.shape and torch.equal(one_bytes, other_bytes)
