"""Spell a program in operators that Torch-TensorRT converts, and put it on the GPU.

In: an exported program. Out: another one over its own copies of the parameters.
"""

import torch
from torch import Tensor
from torch.export import ExportedProgram

from exporter.graph.move import move
from exporter.targets.results import first_results

aten = torch.ops.aten


def prepare(exported: ExportedProgram, results: int, device: str = "cuda") -> ExportedProgram:
    """The program that is compiled.

    Given:
        Results (y_1, ..., y_n), n >= results; `max.dim`, which Torch-TensorRT 2.11 to 2.14 converts only where nothing
        asks for the places, and `sort.stable`, which they do not convert: either would cut the engine in two at every
        merge.

    Result:
        (y_1, ..., y_results) on the device; the largest value and its place as two operators; the plain sort, which
        the library turns into TensorRT's TopK.
    """
    shorter = first_results(exported, results)
    spelled = shorter.run_decompositions({aten.max.dim: _largest, aten.sort.stable: _sorted})
    return move(spelled, device)


def _largest(values: Tensor, axis: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """`max` over an axis; like it, the place of the first of equals."""
    return torch.amax(values, axis, keepdim), torch.argmax(values, axis, keepdim)


def _sorted(
    values: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """`sort` over an axis. Which of equals is first is then up to TensorRT's TopK."""
    sorted_values, places = torch.sort(values, dim, descending)
    return sorted_values, places
