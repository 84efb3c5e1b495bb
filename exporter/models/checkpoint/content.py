"""What is inside a file of weights: which of its dictionaries is the state dict, and under which names.

In: the content that `checkpoint` read; out: tensors by the model's own names, with a
note of each thing that was taken off. The rule, in full:

- Wrappers: a dictionary under one of `WRAPPERS`, the first that is there and holds tensors; again inside of it.
  Averaged weights come before the others, as in timm's own loader. What lies beside a wrapper is left out, and named.
- Prefixes: a chain of `PREFIXES` that every name begins with, if more of the model's names are found without it.
- Nothing else is taken off, and no tensor is left out but the count of an `AveragedModel`.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from exporter.errors import WeightsError, first_few, quoted

WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "module",
    "net",
    "network",
    "weights",
)
"""Keys under which training code keeps a state dict; averaged weights first."""

PREFIXES = (
    "module",
    "_orig_mod",
    "model",
    "backbone",
    "encoder",
    "net",
    "network",
    "vit",
    "visual",
    "trunk",
    "timm_model",
)
"""Attributes of training code that hold the model, and so come before its names."""

MOST_WRAPPERS = 4

_AVERAGED = "n_averaged"  # of torch.optim.swa_utils.AveragedModel: how many models are in the average
_ADAPTERS = ("lora_A", "lora_B", "lora_embedding_", "base_model.model.", ".ia3_l", "hada_w1_", "lokr_w1")
_QUANTISED_NAMES = (
    ".SCB",
    "weight_format",
    ".absmax",
    "quant_state",
    ".qweight",
    ".qzeros",
    "_packed_params",
)
_QUANTISED_TYPES = (torch.int8, torch.uint8)

MERGE_FIRST = (
    "merge it into its model first: peft.PeftModel.from_pretrained(model, FOLDER).merge_and_unload(), "
    "then save that model's state dict"
)
SAVE_IN_FLOAT = "load the model without quantisation (or dequantize() it), and save it in fp32, fp16 or bf16"


def flat_state_dict(content: Any, path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Find the state dict in what a file holds.

    Args:
        content: Dictionaries of tensors and of other things.
        path: The file, for messages.

    Returns:
        Names to tensors, none of which requires grad, and notes on what was unwrapped.

    Raises:
        WeightsError: There is none, not all of it is tensors, it is an adapter, or it is quantised.
    """
    content, notes = _unwrapped(content, path)
    others = [key for key, value in content.items() if not _is_named_tensor(key, value)]
    if len(others) == len(content):
        raise WeightsError(
            f'weights file "{path}" holds no state dict: its keys are {first_few(others) or "none"}; expected tensors '
            f"by name, or such a dictionary under {', '.join(WRAPPERS[4:7])}"
        )
    if others:
        raise WeightsError(
            f'weights file "{path}" holds what is not a tensor: {first_few(others)}; save model.state_dict() alone'
        )
    state = {name: tensor.detach() for name, tensor in content.items()}
    _refuse_adapter(state, path)
    _refuse_quantised(state, path)
    return state, notes


def _unwrapped(content: Any, path: Path) -> tuple[Mapping[Any, Any], tuple[str, ...]]:
    notes: list[str] = []
    for _ in range(MOST_WRAPPERS):
        if not isinstance(content, Mapping):
            raise WeightsError(
                f'weights file "{path}" holds a {type(content).__name__}: expected a state dict, tensors by name'
            )
        key = next((key for key in WRAPPERS if _holds_tensors(content.get(key))), None)
        if key is None:
            break
        beside = [str(other) for other in content if other != key]
        left_out = f"; left out: {first_few(beside)}" if beside else ""
        notes.append(f'weights are those under "{key}" in the file{left_out}')
        content = content[key]
    return content, tuple(notes)


def _holds_tensors(value: Any) -> bool:
    """Whether a value is a state dict, or wraps one."""
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(tensor, torch.Tensor) for tensor in value.values()) or any(
        isinstance(value.get(key), Mapping)
        and any(isinstance(tensor, torch.Tensor) for tensor in value[key].values())
        for key in WRAPPERS
    )


def _is_named_tensor(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, torch.Tensor)


def _refuse_adapter(state: Mapping[str, torch.Tensor], path: Path) -> None:
    names = [name for name in state if any(mark in name for mark in _ADAPTERS)]
    if names or path.name.startswith("adapter_model."):
        raise WeightsError(
            f'weights file "{path}" is an adapter (LoRA, PEFT), not a model: {first_few(names or list(state))}; '
            + MERGE_FIRST
        )


def _refuse_quantised(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse what is no plain floating-point weight: packed integers, float8, sparse, or without values."""
    for name, tensor in state.items():
        what = _odd_type(name, tensor)
        if what:
            raise WeightsError(
                f'weights file "{path}" holds {what} ({quoted(name)}): expected fp32, fp16 or bf16; {SAVE_IN_FLOAT}'
            )


def _odd_type(name: str, tensor: torch.Tensor) -> str | None:
    if tensor.is_quantized or any(mark in name for mark in _QUANTISED_NAMES):
        return "quantised weights"
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1:
        return f"quantised weights of type {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.dtype in _QUANTISED_TYPES and name.endswith("weight"):
        return f"quantised weights of type {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.is_complex():
        return "complex numbers"
    if tensor.layout != torch.strided:
        return "a sparse tensor"
    return "a tensor without values (meta)" if tensor.is_meta else None


def strip_prefix(
    state: dict[str, torch.Tensor], expected: Collection[str], path: Path
) -> tuple[dict[str, torch.Tensor], str | None]:
    """Take off the prefix that a training wrapper put before the model's own names.

    Args:
        state: The state dict of a file.
        expected: The model's own names.
        path: The file, for messages.

    Returns:
        The state dict and a note; the very same and None if there is no such prefix.

    Raises:
        WeightsError: Most names have the prefix, but not all: the rest belongs to something else.
    """
    own = set(expected)
    prefix = max(_prefixes(state), key=lambda prefix: (_found(state, prefix, own), -len(prefix)))
    if not prefix or _found(state, prefix, own) <= _found(state, "", own):
        return state, None
    is_average = prefix.startswith("module.") and _AVERAGED in state
    rest = sorted(
        name for name in state if not name.startswith(prefix) and not (is_average and name == _AVERAGED)
    )
    if rest:
        raise WeightsError(
            f'weights in "{path}" have the prefix "{prefix}" on {len(state) - len(rest)} of {len(state)} names, '
            f"the rest is not of this model: {first_few(rest)}; save the state dict of the part alone "
            f"(such as net.{prefix}state_dict())"
        )
    count = f', and "{_AVERAGED}" was left out' if is_average else ""
    stripped = {
        name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)
    }
    return stripped, f'the prefix "{prefix}" of the weights\' names was taken off{count}'


def _prefixes(state: Mapping[str, torch.Tensor]) -> set[str]:
    """Every chain of known prefixes that some name begins with, and none at all."""
    chains = {""}
    for name in state:
        chain = ""
        for part in name.split(".")[:-1]:
            if part not in PREFIXES:
                break
            chain += f"{part}."
            chains.add(chain)
    return chains


def _found(state: Mapping[str, torch.Tensor], prefix: str, own: set[str]) -> int:
    return sum(name.startswith(prefix) and name.removeprefix(prefix) in own for name in state)
