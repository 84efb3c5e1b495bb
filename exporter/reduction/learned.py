"""Parts of a method that are trained with the model: which tensors, and which of them each reduction reads.

In: the tensors that a checkpoint holds besides the model's. Out: those of every reduction, checked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exporter.errors import WeightsError, first_few, quoted

_DRAWN_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Tensors that a method reads of a checkpoint.

    Attributes:
        prefix: of their names; those of the n-th reduction are named `{prefix}.{n}.{name}`.
        shapes: `shapes(width)`: by name, in the order in which `decide` and `regret` take them, after the signals. A
            matrix is one of a layer that every patch goes through; multiply-accumulates are counted so.
    """

    prefix: str
    shapes: Callable[[int], Mapping[str, tuple[int, ...]]]

    def stages(self, state: Mapping[str, Tensor], widths: Sequence[int]) -> tuple[tuple[Tensor, ...], ...]:
        """The tensors of every reduction, in fp32.

        Args:
            state: tensors by name, of a checkpoint.
            widths: channels of the tokens at each reduction.

        Raises:
            WeightsError: a tensor is missing, has another shape, is not finite, or is one too many.
        """
        expected = {
            f"{self.prefix}.{stage}.{name}": shape
            for stage, width in enumerate(widths)
            for name, shape in self.shapes(width).items()
        }
        if missing := [name for name in expected if name not in state]:
            raise WeightsError(
                f"weights: the schedule reduces the tokens of {len(widths)} blocks, and of the tensors {self.prefix}.* "
                f"that the method reads there {len(missing)} are missing: {first_few(missing)}; give the checkpoint "
                "that has them with --weights FILE, or reduce at fewer blocks (--at)"
            )
        if extra := [quoted(name) for name in state if name not in expected]:
            raise WeightsError(
                f"weights: the schedule reduces the tokens of {len(widths)} blocks, and the checkpoint has "
                f"{len(extra)} tensors that are read at none of them: {first_few(extra)}; reduce at as many blocks as "
                "it was trained for (--at)"
            )
        for name, shape in expected.items():
            if tuple(state[name].shape) != shape:
                raise WeightsError(
                    f"weights: {name}: expected {shape} for this model, got {tuple(state[name].shape)}; give the "
                    "checkpoint of this architecture"
                )
            if not bool(torch.isfinite(state[name]).all()):
                raise WeightsError(
                    f"weights: {name} holds values that are not finite; use another checkpoint"
                )
        tensors = iter([state[name] for name in expected])
        return tuple(tuple(next(tensors) for _ in self.shapes(width)) for width in widths)

    def drawn(self, widths: Sequence[int], seed: int) -> tuple[tuple[Tensor, ...], ...]:
        """Random tensors of the same shapes, which know nothing: for tests of structure and speed."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(
            tuple(
                torch.randn(shape, generator=generator) * _DRAWN_STD for shape in self.shapes(width).values()
            )
            for width in widths
        )
