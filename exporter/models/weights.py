"""Parameters: read strictly from a safetensors file, drawn from a seed, and fingerprinted.

The sources build a module; this file fills it. Nothing is unpickled and no key is ever ignored.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from exporter.errors import WeightsError, nearest

KEYS_SHOWN = 3
"""How many wrong keys a message names before it only counts them."""

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


def build_from_file(build: Callable[[], nn.Module], path: Path) -> nn.Module:
    """Build a module and fill it from a safetensors state dict, without ever holding its weights twice.

    Args:
        build: Builds the module; called on the meta device first.
        path: The state dict, with the module's own keys; fp16 and bf16 are upcast to fp32.

    Raises:
        WeightsError: The file is missing or damaged, or its keys or shapes are not the module's.
    """
    with torch.device("meta"):
        module = build()
    state = read_state_dict(path)
    check_state_dict(module.state_dict(), state, path)
    module.load_state_dict(state, strict=True, assign=True)
    if any(buffer.is_meta for buffer in module.buffers()):  # computed, not stored: tables, causal masks
        module = build()
        module.load_state_dict(state, strict=True, assign=True)
    return freeze(module)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; floating-point tensors come back as fp32.

    Raises:
        WeightsError: There is no such file, it is not safetensors, or it is damaged.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        hint = nearest(str(path), ("pretrained", "random"))
        raise WeightsError(
            f'weights file "{path}" {kind}: expected pretrained, random or a .safetensors file.{hint}'
        )
    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise WeightsError(
            f'weights file "{path}" is not a safetensors state dict, or is damaged ({reason}); '
            "save it with safetensors.torch.save_file, or fetch it again"
        ) from error
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            state[name] = tensor.float()
    return state


def check_state_dict(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], where: Path | str
) -> None:
    """Compare a state dict's keys and shapes with a module's.

    Raises:
        WeightsError: They differ; the message lists what is missing, unexpected and mis-shaped.
    """
    misshaped = [
        f"{name} (expected {tuple(expected[name].shape)}, got {tuple(tensor.shape)})"
        for name, tensor in sorted(found.items())
        if name in expected and expected[name].shape != tensor.shape
    ]
    report_wrong_keys(
        sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys()), misshaped, where
    )


def report_wrong_keys(
    missing: list[str], unexpected: list[str], misshaped: list[str], where: Path | str
) -> None:
    """Say which keys of a state dict do not fit the model.

    Raises:
        WeightsError: Any of the three lists has an entry.
    """
    groups = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", misshaped))
    wrong = [f"{len(keys)} {kind}: {_first_few(keys)}" for kind, keys in groups if keys]
    if wrong:
        raise WeightsError(
            f'weights in "{where}" do not belong to this model: {"; ".join(wrong)}; '
            "give the state dict of the same architecture and image size"
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


def _first_few(keys: list[str]) -> str:
    shown = ", ".join(keys[:KEYS_SHOWN])
    return shown if len(keys) <= KEYS_SHOWN else f"{shown} and {len(keys) - KEYS_SHOWN} more"
