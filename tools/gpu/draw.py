"""Weights that are stored nowhere: drawn from a seed, and the same numbers on every device.

In: the parameters of a library's model. Out: a table of names, shapes and distributions, and the tensors that it
stands for. Speed does not depend on the values; they only have to keep activations in range and images apart.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SEED = 0

_MASK, _FACTOR = 0xFFFFFFFF, 0x45D9F3B
_VECTOR_SPREAD = 0.02


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A float32 parameter.

    Attributes:
        shape: of the tensor.
        mean: of its values.
        spread: their standard deviation; they are uniform.
    """

    shape: tuple[int, ...]
    mean: float
    spread: float


def table(module: nn.Module) -> dict[str, Parameter]:
    """By name, what stands for each parameter: matrices keep activations in range, vectors stay near their start."""
    return {name: _parameter(value) for name, value in module.named_parameters()}


def _parameter(value: Tensor) -> Parameter:
    shape = tuple(value.shape)
    if value.dim() < 2:
        return Parameter(shape=shape, mean=float(value.detach().mean()), spread=_VECTOR_SPREAD)
    return Parameter(shape=shape, mean=0.0, spread=(value.shape[0] / value.numel()) ** 0.5)


def draw(name: str, parameter: Parameter, device: str | torch.device) -> Tensor:
    """The tensor of a parameter, float32: integers are hashed, so every device gets the same bits.

    Args:
        name: of the parameter; another name gives other values.
        parameter: its shape and distribution.
        device: where it is drawn.
    """
    start = zlib.crc32(f"{SEED} {name}".encode())
    count = torch.Size(parameter.shape).numel()
    bits = torch.arange(count, dtype=torch.int64, device=device)
    bits.mul_(0x9E3779B1).add_(start).bitwise_and_(_MASK)
    for _ in range(2):
        bits.bitwise_xor_(bits >> 16).mul_(_FACTOR).bitwise_and_(_MASK)
    bits.bitwise_xor_(bits >> 16)
    unit = (bits >> 8).to(torch.float32).mul_(2.0**-24).sub_(0.5)
    return unit.mul_(12**0.5 * parameter.spread).add_(parameter.mean).reshape(parameter.shape)


def fill(module: nn.Module, drawn: Mapping[str, Tensor]) -> None:
    """Write drawn values into the parameters of a model, in place and in the parameters' own types."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(drawn[name])


def pictures(count: int, shape: tuple[int, ...], device: str | torch.device) -> Tensor:
    """Images that differ from each other and have coarse and fine structure: (count, *shape), float32."""
    channels, height, width = shape
    coarse = draw("coarse", Parameter(shape=(count, channels, 8, 8), mean=0.0, spread=1.0), device)
    fine = draw("fine", Parameter(shape=(count, *shape), mean=0.0, spread=0.3), device)
    return nn.functional.interpolate(coarse, size=(height, width), mode="bilinear") + fine
