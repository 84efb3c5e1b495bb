"""The dense outputs of a checkpoint: the last hidden state of its tower, or the map of a model that makes maps.

In: a configuration; out: an `HFTower` that gives `tokens` (B, T, C), as the class returns them; or `maps`, what
a class predicts for every place of the image (`rules.MAPS`): depths, classes, key points, or a backbone's features.
"""

from dataclasses import replace
from typing import Any

from exporter.errors import ModelUnavailableError, library_failures
from exporter.models.hf.module import Build
from exporter.models.hf.patches import not_patches
from exporter.models.hf.rules import EXPECTED, MAPS, UNBUILT, class_of, find_tower
from exporter.models.hf.tower import HFTower, try_on_meta

_BACKBONE = "backbone_config"


def find_dense_tower(spelling: str, config: Any) -> HFTower:
    """Find the class of a checkpoint's image tower, and what of its output has an entry per token or place.

    Args:
        spelling: The model, as messages name it.
        config: Of the checkpoint.

    Raises:
        ModelUnavailableError: It is no model of patches, or no class of it gives its tokens.
        UsageError: It has a text tower only.
    """
    name, model_class, own, notes = class_of(spelling, config)
    pick = next((pick for suffix, pick in MAPS.items() if name.endswith(suffix)), None)
    if pick is None:
        return _of_tokens(spelling, find_tower(spelling, config, "image"))
    part = _BACKBONE if getattr(own, _BACKBONE, None) is not None else None
    if complaint := not_patches(getattr(own, part) if part else own):
        raise ModelUnavailableError(f"{spelling} is a {name}, {complaint}: {EXPECTED}")
    tower = HFTower(
        architecture=name,
        build=Build(model_class=model_class, config=own, pick=pick),
        part=part,
        output_name="maps",
        whole=(model_class, own),
        notes=notes,
    )
    if pick == "feature_maps" and len(own.out_features) != 1:
        raise ModelUnavailableError(
            f"{spelling} is a {name} that gives {len(own.out_features)} maps: expected one of out_features in its "
            "config.json"
        )
    with library_failures(ModelUnavailableError, f"{spelling} is a {name}, {UNBUILT}", EXPECTED):
        if try_on_meta(tower) is None:
            raise ModelUnavailableError(f"{spelling} is a {name}, {UNBUILT}: {EXPECTED}")
    return tower


def _of_tokens(spelling: str, tower: HFTower) -> HFTower:
    """The tower with its last hidden state as output: its own, or that of the encoder below its head."""
    if tower.output_name == "tokens":
        return tower
    rows, columns = tower.grid
    for child in (tower.build.child, tower.build.model_class.base_model_prefix):
        build = replace(tower.build, pick="last_hidden_state", child=child)
        found = replace(tower, build=build, output_name="tokens", notes=())
        trial = try_on_meta(found)
        if trial is not None and trial.shape[:-1] >= (1, rows * columns):
            return found
    raise ModelUnavailableError(
        f"{spelling} is a {tower.architecture}, which does not return its last hidden state; leave --outputs dense out"
    )
