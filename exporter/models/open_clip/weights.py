"""Files of weights for open_clip models: the whole model, or the image tower alone.

What open_clip itself
changes in a state dict when it loads one is changed here as well, by its own functions: names of older versions,
tables of positions of another size, shapes of the temperature.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from torch import nn

from exporter.models.checkpoint.read import Checkpoint, read_checkpoint
from exporter.models.request import Tower
from exporter.models.weights import build_on_meta, fill

_VISUAL = "visual."
_TABLE = "visual.positional_embedding"
_TEXT_TABLES = ("positional_embedding", "text.positional_embedding")
_COMPUTED = "text.transformer.embeddings.position_ids"

State = dict[str, torch.Tensor]


def fill_from_file(
    build: Callable[[], Any], path: Path, tower: Tower
) -> tuple[nn.Module, bool, tuple[str, ...]]:
    """Build a model, or its image tower, and fill it from a file.

    Args:
        build: Builds the whole model; called on the meta device first.
        path: The whole model, or for the image tower `visual.*` or that tower's own state dict.
        tower: That is wanted.

    Returns:
        The module, whether it is the image tower alone, and notes on what was changed.

    Raises:
        WeightsError: The file cannot be read, or its names or shapes are not the model's.
    """
    clip: Any = build_on_meta(build)
    checkpoint = read_checkpoint(path).fitted_to(clip.state_dict())
    if tower == "image" and (visual := _visual_only(checkpoint, clip)) is not None:
        state, notes = _resampled(visual.state, clip)
        bare = {name.removeprefix(_VISUAL): tensor for name, tensor in state.items()}
        module = fill(lambda: build().visual, bare, path)
        return module, True, (*visual.notes, "the file holds the image tower alone", *notes)
    state, notes = _resampled(_of_this_version(dict(checkpoint.state), clip), clip)
    return fill(build, state, path), False, (*checkpoint.notes, *notes)


def _visual_only(checkpoint: Checkpoint, clip: Any) -> Checkpoint | None:
    """The checkpoint with `visual.` before every name, if it holds no text tower."""
    names, whole = checkpoint.state.keys(), clip.state_dict().keys()
    own: State = clip.visual.state_dict()
    if names and all(name.startswith((_VISUAL, "logit_")) for name in names):
        state = {name: tensor for name, tensor in checkpoint.state.items() if name.startswith(_VISUAL)}
        return replace(checkpoint, state=state)
    bare = checkpoint if names & whole else checkpoint.fitted_to(own)
    if len(own.keys() & bare.state.keys()) <= len(whole & names):
        return None
    return replace(bare, state={f"{_VISUAL}{name}": tensor for name, tensor in bare.state.items()})


def _of_this_version(state: State, clip: Any) -> State:
    """As `open_clip.load_checkpoint` does before it fills a model."""
    state = convert_state_dict(clip, state)
    if "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(clip, name, None)
        if own is not None and name in state and state[name].numel() == own.numel():
            state[name] = state[name].reshape(own.shape)
    if getattr(clip, "logit_bias", None) is not None and "logit_scale" in state:
        state.setdefault("logit_bias", torch.zeros_like(state["logit_scale"]))
    if _COMPUTED in state and _COMPUTED not in clip.state_dict():
        del state[_COMPUTED]
    return state


def _resampled(state: State, clip: Any) -> tuple[State, tuple[str, ...]]:
    """With tables of positions of the model's own lengths, by open_clip's own functions; else as they are."""
    resampled, notes = dict(state), []
    grid = getattr(clip.visual, "grid_size", None)
    if grid is not None and _is_square_grid(state.get(_TABLE), _own(clip, (_TABLE,))):
        resize_pos_embed(resampled, clip)
        if resampled[_TABLE].shape != state[_TABLE].shape:
            side = isqrt(len(state[_TABLE]) - 1)
            height, width = (grid, grid) if isinstance(grid, int) else grid
            notes.append(
                f"positions resampled from {side}x{side} to {height}x{width} patches, as open_clip does"
            )
    text = next((name for name in _TEXT_TABLES if name in state), "")
    own = _own(clip, _TEXT_TABLES)
    if text and own is not None and state[text].dim() == 2 and state[text].shape[1] == own.shape[1]:
        resize_text_pos_embed(resampled, clip)
        if len(resampled[text]) != len(state[text]):
            notes.append(
                f"positions of texts resampled from {len(state[text])} to {len(own)}, as open_clip does"
            )
    return resampled, tuple(notes)


def _own(clip: Any, names: tuple[str, ...]) -> torch.Tensor | None:
    state: Mapping[str, torch.Tensor] = clip.state_dict()
    return next((state[name] for name in names if name in state), None)


def _is_square_grid(table: torch.Tensor | None, own: torch.Tensor | None) -> bool:
    """A class token and a square of patches, as wide as the model's own."""
    if table is None or own is None or table.dim() != 2 or table.shape[1] != own.shape[1] or len(table) < 2:
        return False
    return isqrt(len(table) - 1) ** 2 == len(table) - 1
