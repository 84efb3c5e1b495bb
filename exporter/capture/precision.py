"""Run a model in half precision behind fp32 inputs and outputs."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from exporter.errors import UsageError

Precision = Literal["fp32", "fp16", "bf16"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def in_precision(model: nn.Module | ExportedProgram, precision: Precision) -> nn.Module | ExportedProgram:
    """The model with its parameters and arithmetic in `precision`; callers still give and get fp32.

    Raises:
        UsageError: a saved program, whose arithmetic is fixed, in another precision than fp32.
    """
    if precision == "fp32":
        return model
    if isinstance(model, ExportedProgram):
        raise UsageError(f"precision: a saved program keeps its own, expected fp32, got {precision}")
    return _Cast(model.to(_DTYPES[precision]), _DTYPES[precision])


class _Cast(nn.Module):
    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        given = images.to(self.dtype) if images.is_floating_point() else images
        results = self.model(given)
        flat = results if isinstance(results, tuple | list) else (results,)
        return tuple(result.float() for result in flat)
