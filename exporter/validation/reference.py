"""The independent half of every parity check: the rewritten program in eager PyTorch, run once per input."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from exporter.rewrite import RewrittenProgram
from exporter.targets import Array


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One input and what eager PyTorch makes of it.

    Attributes:
        images: a batch of the program's input.
        outputs: the model's outputs.
        records: the match of every merging block, as `record_match` has it.
    """

    images: Array
    outputs: tuple[Tensor, ...]
    records: tuple[Tensor, ...]


def run_eager(program: RewrittenProgram, inputs: Mapping[str, Array]) -> dict[str, Reference]:
    """Run a program on named batches."""
    references = {}
    for name, images in inputs.items():
        results = program(torch.from_numpy(images))
        references[name] = Reference(
            images=images, outputs=results[: program.outputs], records=results[program.outputs :]
        )
    return references
