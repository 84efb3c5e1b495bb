"""Parameters: put strictly into a module from a file, drawn from a seed, checked and fingerprinted.

The sources build a module; this file fills it with what `checkpoint` read. No name of a state dict is ever ignored.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from exporter.errors import WeightsError
from exporter.models.checkpoint.wrong_weights import check_state_dict, report_wrong_keys

__all__ = [
    "build_on_meta",
    "build_random",
    "check_finite",
    "check_state_dict",
    "fill",
    "freeze",
    "report_wrong_keys",
    "sha256_of",
]

NEARLY_CONSTANT = 1e-3
"""Below this spread a table (class token, positions, head) adds nothing that a comparison could notice."""

SMALL_SCALE = 0.1
"""Below this a constant 1-D parameter is a residual scale (LayerScale starts at 1e-6 to 1e-1), not a norm."""

REDRAWN_STD = 0.02


def freeze(module: nn.Module) -> nn.Module:
    """Put a module in eval mode and fp32, with nothing that requires grad."""
    return module.eval().requires_grad_(False).float()


def build_random(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a module and draw its parameters from a seed.

    The library's own initialisation runs first. It leaves heads, class tokens and LayerScale at or near zero,
    so that outputs would be constant and errors invisible; every parameter left without spread is drawn again
    (see `redraw_constant_parameters`). The caller's random state is left alone.

    Args:
        build: Builds the module on the CPU.
        seed: The same seed gives the same weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        redraw_constant_parameters(module)
    return freeze(module)


@torch.no_grad()
def redraw_constant_parameters(module: nn.Module) -> None:
    """Draw again, from the current random state, every parameter that initialisation left (nearly) constant.

    Tables and matrices get N(0, 0.02); residual scales N(0.1, 0.02); norm weights and biases keep their value
    and get N(0, 0.02) on top. Scalars (temperatures) stay.
    """
    for parameter in module.parameters():
        if parameter.numel() < 2 or parameter.std() >= NEARLY_CONSTANT:
            continue
        noise = torch.randn_like(parameter) * REDRAWN_STD
        if parameter.dim() > 1:
            parameter.copy_(noise)
        else:
            centre = parameter.mean()
            is_scale = 0 < abs(float(centre)) <= SMALL_SCALE
            parameter.copy_(noise + (SMALL_SCALE if is_scale else centre))


def build_on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a module without values: its names and shapes only."""
    with torch.device("meta"):
        return build()


def fill(build: Callable[[], nn.Module], state: Mapping[str, torch.Tensor], where: Path | str) -> nn.Module:
    """Build a module and give it its weights, strictly.

    Args:
        build: Builds the module; called on the meta device first.
        state: Weights by the module's own names; their memory is taken over.
        where: They come from, as messages name it.

    Raises:
        WeightsError: The names or shapes are not the module's.
    """
    module = build_on_meta(build)
    check_state_dict(module.state_dict(), state, where)
    module.load_state_dict(state, strict=True, assign=True)
    if any(buffer.is_meta for buffer in module.buffers()):  # computed, not stored: tables, causal masks
        module = build()
        module.load_state_dict(state, strict=True, assign=True)
    return freeze(module)


def check_finite(module: nn.Module | torch.export.ExportedProgram) -> None:
    """Refuse parameters that hold NaN or infinity. Buffers may: masks are made of infinities.

    Raises:
        WeightsError: One does; the message names the first and counts its values.
    """
    for name, parameter in module.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point():
            continue
        if not bool(torch.isfinite(parameter).all()):
            count = int((~torch.isfinite(parameter)).sum())
            values = "1 value that is" if count == 1 else f"{count} values that are"
            raise WeightsError(
                f"weights: {name} holds {values} not finite (NaN or infinity) of {parameter.numel()}: "
                "the training diverged, or the conversion overflowed; use an earlier checkpoint"
            )


def sha256_of(state: Mapping[str, torch.Tensor]) -> str:
    """Fingerprint of a state dict: names, dtypes, shapes and bytes, in the order of the names.

    The tensors' own memory is hashed; nothing contiguous is copied.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
