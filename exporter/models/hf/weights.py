"""The weights of a transformers tower: read strictly, drawn, or from a file whose free parameters the tower takes.

In: an `HFTower` and where its weights are; out: a module for the image size asked for.
"""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from exporter.errors import UsageError, WeightsError, library_failures
from exporter.models.checkpoint.read import read_checkpoint
from exporter.models.hf.checkpoint import check_weights
from exporter.models.hf.errors import explained, reading
from exporter.models.hf.inside import alone_in
from exporter.models.hf.module import (
    Unwrapped,
    attention_of,
    instantiate,
    on_meta,
    unwrap,
    whole_on_meta,
)
from exporter.models.hf.place import Place
from exporter.models.hf.positions import POSITION_TABLES, keep_resampled_positions, resample_positions
from exporter.models.hf.tower import HFTower, try_on_meta
from exporter.models.quiet import quiet
from exporter.models.request import ImageSize, ResolvedRequest, size_text
from exporter.models.weights import build_random, report_wrong_keys

_FETCH_AGAIN = "fetch the checkpoint again, or give --weights FILE or random"

# Ends of keys that evaluation does not read: tables that are computed, and what stands for hidden patches.
_NOT_READ = ("position_ids", "mask_token")

_NO_CONVERSION = "DISABLE_SAFETENSORS_CONVERSION"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a tower's parameters come from.

    Attributes:
        asked: The request.
        place: The checkpoint.
        state: The state dict of a weights file; None for any other weights.
        notes: What was taken off the names in the file.
    """

    asked: ResolvedRequest
    place: Place
    state: Mapping[str, torch.Tensor] | None = None
    notes: tuple[str, ...] = ()

    @property
    def origin(self) -> Path | str:
        """The file or checkpoint, as messages name it."""
        return self.place.where if self.state is None else self.asked.weights_path


def find_weights(asked: ResolvedRequest, place: Place, tower: HFTower) -> Weights:
    """Read the weights file, if one was asked for.

    Raises:
        WeightsError: It is no state dict, or damaged.
    """
    if asked.weights_kind != "file":
        return Weights(asked=asked, place=place)
    build = tower.build
    names = (
        whole_on_meta(*tower.whole).state_dict()
        | on_meta(build.model_class, build.config, build.arguments).state_dict()
    )
    checkpoint = read_checkpoint(asked.weights_path).fitted_to(names)
    return Weights(asked=asked, place=place, state=checkpoint.state, notes=checkpoint.notes)


def load_tower(weights: Weights, tower: HFTower, size: ImageSize | None) -> Unwrapped:
    """Build a tower with its weights.

    Positions are resampled where the size is not the tower's own: in the table, as `resample_positions` does it, or
    where the class takes square images only, by the class's own method, once.

    Args:
        weights: Where from.
        tower: At its own image size.
        size: Height and width wanted; None for texts.

    Raises:
        ModelUnavailableError: The checkpoint cannot be read.
        UsageError: The class cannot take images of that size.
        WeightsError: The weights do not fit.
    """
    if size is None or size == tower.image_size:
        return unwrap(build_model(weights, tower), tower.build)
    height, width = size
    resized = tower.with_config({"image_size": height if height == width else [height, width]})
    trial = try_on_meta(resized, size)
    if trial is not None and (height == width or not trial.resamples):
        if weights.asked.weights_kind == "random":
            return unwrap(build_model(weights, resized), resized.build)
        return unwrap(_with_resampled_table(weights, tower, resized), resized.build)
    return _with_kept_positions(weights, tower, size)


def _with_resampled_table(weights: Weights, tower: HFTower, resized: HFTower) -> nn.Module:
    state = resample_positions(build_model(weights, tower).state_dict(), tower.grid, resized.grid)
    expected = on_meta(resized.build.model_class, resized.build.config, resized.build.arguments).state_dict()
    fixed = [
        name for name, table in state.items() if name in expected and expected[name].shape != table.shape
    ]
    if fixed:
        raise UsageError(
            f"{weights.place.spelling} takes images of {size_text(tower.image_size)} only: its {fixed[0]} is made for "
            "that size; leave --image-size out"
        )
    return _from_pretrained(Weights(asked=weights.asked, place=weights.place, state=state), resized)


def _with_kept_positions(weights: Weights, tower: HFTower, size: ImageSize) -> Unwrapped:
    refusal = f"{weights.place.spelling} cannot take images of {size_text(size)}"
    way_out = f"expected a square --image-size, or its own {size_text(tower.image_size)}"
    rows, columns = tower.grid
    own = try_on_meta(tower)
    if rows != columns or own is None:
        raise UsageError(f"{refusal}: {way_out}")
    module = unwrap(build_model(weights, tower), tower.build, resampled=not own.resamples)
    with library_failures(UsageError, refusal, way_out), quiet():
        keep_resampled_positions(module, tower.channels, size)
    return module


def fit_to_state(weights: Weights, tower: HFTower) -> tuple[HFTower, tuple[str, ...]]:
    """Take the free parameters of an architecture from the shapes in a weights file.

    Args:
        weights: With the file's state dict.
        tower: As in the configuration, with the options of the request.

    Returns:
        The tower with the file's classes, image size and registers, and a note for each that differs.

    Raises:
        WeightsError: The file contradicts an option of the request.
    """
    _, report = _report(weights, tower)
    found: dict[str, int] = {}
    for key, got, expected in report["mismatched_keys"]:
        found |= _free_parameter(tower, key, tuple(got), tuple(expected))
    for name, value in found.items():
        asked = weights.asked.request.options.get(name)
        if asked is not None:
            raise WeightsError(
                f'weights in "{weights.origin}" have {name} {value}, and --model-option says {asked}: '
                "leave the option out, or give other weights"
            )
    notes = tuple(
        f"{name} {value} is taken from the weights file (config.json: {_own(tower, name)})"
        for name, value in found.items()
    )
    return tower.with_config(found), notes


def _own(tower: HFTower, name: str) -> object:
    return getattr(tower.build.config, name, getattr(tower.config, name, None))


def _free_parameter(
    tower: HFTower, key: str, got: tuple[int, ...], expected: tuple[int, ...]
) -> dict[str, int]:
    if len(got) != len(expected):
        return {}
    if got[1:] == expected[1:] and expected[0] == tower.build.config.num_labels and "classifier" in key:
        return {"num_labels": got[0]}
    if got[-1:] == expected[-1:] and key.endswith("register_tokens"):
        return {"num_register_tokens": got[-2]}
    if got[-1:] == expected[-1:] and key.endswith(POSITION_TABLES):
        prefix = expected[-2] - math.prod(tower.grid)
        side = math.isqrt(max(got[-2] - prefix, 0))
        height, width = tower.patch_size
        if side * side == got[-2] - prefix and height == width:
            return {"image_size": side * height}
    return {}


def build_model(weights: Weights, tower: HFTower) -> nn.Module:
    """Build a tower's class with its weights, as it is.

    Raises:
        ModelUnavailableError: The checkpoint cannot be read.
        WeightsError: The weights do not fit.
    """
    build = tower.build
    if weights.asked.weights_kind == "random":
        with explained("the class", weights.place, advice="correct config.json"):
            return build_random(
                lambda: instantiate(build.model_class, build.config, build.arguments),
                weights.asked.request.seed,
            )
    return _from_pretrained(weights, tower)


def _from_pretrained(weights: Weights, tower: HFTower) -> nn.Module:
    """`from_pretrained`, strictly: whatever it would only warn about is an error."""
    if weights.state is None:
        check_weights(weights.place)
    model, report = _report(weights, tower)
    unexpected = sorted(key for key in report["unexpected_keys"] if not key.endswith(_NOT_READ))
    if unexpected:
        others = _keys_of_other_parts(tower)
        unexpected = [key for key in unexpected if key not in others]
    misshaped = sorted(
        f"{key} (expected {tuple(expected)}, got {tuple(got)})"
        for key, got, expected in report["mismatched_keys"]
    )
    report_wrong_keys(sorted(report["missing_keys"]), unexpected, misshaped, weights.origin)
    return model


def _report(weights: Weights, tower: HFTower) -> tuple[nn.Module, Any]:
    """The model, and what transformers says about its keys; a checkpoint's pickles are read with `weights_only`.

    Of a tower inside a bigger checkpoint, keys outside of it are of other parts: they are not read.
    """
    given = weights.state is not None
    source = None if given else weights.place.where
    model_class, config, path = _as_saved(weights, tower)
    arguments = {"state_dict": dict(weights.state or {})} if given else weights.place.pinned
    with (
        reading("the weights", weights.place, advice=_FETCH_AGAIN)
        if not given
        else explained("the weights", weights.place, advice=_FETCH_AGAIN),
        quiet(),
        _nothing_converted(),
    ):
        model, report = model_class.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            attn_implementation="eager" if path else attention_of(model_class),
            weights_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **arguments,
            **({} if path else tower.build.arguments),
        )
    own = f"{path}." if path else ""
    report["unexpected_keys"] = [key for key in report["unexpected_keys"] if key.startswith(own)]
    return model.get_submodule(path), report


def _as_saved(weights: Weights, tower: HFTower) -> tuple[Any, Any, str]:
    """The class and configuration that the names of the tensors are of, and where the tower is in it."""
    build = tower.build
    if tower.path is None or (weights.state and _is_of_tower(weights.state, tower)):
        return build.model_class, build.config, ""
    return alone_in(tower.whole[0], tower.path, build), tower.whole[1], tower.path


def _is_of_tower(state: Mapping[str, torch.Tensor], tower: HFTower) -> bool:
    build = tower.build
    return not on_meta(build.model_class, build.config, build.arguments).state_dict().keys().isdisjoint(state)


@contextmanager
def _nothing_converted() -> Iterator[None]:
    """Without this transformers asks a service of the hub to convert checkpoints without safetensors."""
    before = os.environ.get(_NO_CONVERSION)
    os.environ[_NO_CONVERSION] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NO_CONVERSION]
        else:
            os.environ[_NO_CONVERSION] = before


def _keys_of_other_parts(tower: HFTower) -> set[str]:
    """Every key that the checkpoint has as it was saved, and those of the plain model inside it, with its pooler."""
    from transformers import MODEL_MAPPING

    model_class, config = tower.whole
    keys = set(whole_on_meta(model_class, config).state_dict())
    plain = MODEL_MAPPING.get(type(config), None)
    if isinstance(plain, type) and plain is not model_class:
        keys |= {f"{model_class.base_model_prefix}.{key}" for key in on_meta(plain, config).state_dict()}
    return keys
