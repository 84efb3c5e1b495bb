"""The independent half of every parity check: the rewritten program in eager PyTorch, run once per input."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from exporter.rewrite import RewrittenProgram
from exporter.targets import Array
from exporter.validation.inputs import Cases


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One input and what eager PyTorch makes of it.

    Attributes:
        inputs: a batch of every input by name, in the order of the call.
        outputs: the model's outputs.
        records: the match of every merging block, in the form of `record_match`.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[Tensor, ...]
    records: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs as PyTorch takes them."""
        return tensors_of(self.inputs)


def tensors_of(inputs: Mapping[str, Array]) -> tuple[Tensor, ...]:
    """Inputs by name, in the order of the call, as PyTorch takes them."""
    return tuple(torch.from_numpy(array) for array in inputs.values())


def run_eager(program: RewrittenProgram, cases: Cases) -> dict[str, Reference]:
    """Run a program on every case."""
    references = {}
    for name, inputs in cases.items():
        results = program(*tensors_of(inputs))
        references[name] = Reference(
            inputs=inputs, outputs=results[: program.outputs], records=results[program.outputs :]
        )
    return references
