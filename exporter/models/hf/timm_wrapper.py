"""Models of timm that transformers wraps (`model_type: timm_wrapper`), and folders of timm given as `hf:`.

They are loaded by `timm.source`: the module is timm's, whose output is what the wrapper returns.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm

from exporter.errors import ModelUnavailableError
from exporter.models.hf.checkpoint import check_weights, read_place_json
from exporter.models.hf.errors import reading
from exporter.models.hf.place import Place
from exporter.models.loaded import LoadedModel
from exporter.models.request import ResolvedRequest, check_image_tower, safe_name
from exporter.models.timm.model import TimmModel, saved_timm_model
from exporter.models.timm.source import load_timm_model

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def is_of_timm(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of timm's own, or of transformers' wrapper around it."""
    return config.get("model_type") == "timm_wrapper" or "pretrained_cfg" in config


def load_timm_wrapper(asked: ResolvedRequest, place: Place) -> LoadedModel:
    """Load a model of timm that transformers wraps.

    Args:
        asked: The request.
        place: The checkpoint, which has a config.json.

    Raises:
        ModelUnavailableError: timm does not have the architecture, or the checkpoint cannot be read.
        UsageError: The image size or an option does not fit, or the text tower was asked for.
        WeightsError: The weights do not fit.
    """
    check_image_tower(asked)
    with reading("the model of timm", place, advice="correct its config.json, or fetch it again"):
        config = place.file("config.json")
        assert config is not None
        model = saved_timm_model(
            config.parent,
            id=place.name if place.folder else asked.id,
            name=safe_name(place.name),
            weights=_weights(place) if asked.weights_kind == "pretrained" else None,
            weights_tag=place.commit,
        )
        return load_timm_model(asked, _as_transformers_builds(model, read_place_json(config, place)))


def _as_transformers_builds(model: TimmModel, tree: Mapping[str, Any]) -> TimmModel:
    """The wrapper builds what the registry has, and without a head for its plain model."""
    if tree.get("model_type") != "timm_wrapper":
        return model
    registered = timm.get_pretrained_cfg(model.architecture)
    own = {} if registered is None else registered.to_dict()  # type: ignore[no-untyped-call]
    headless = {"num_classes": 0} if tree.get("architectures") == ["TimmWrapperModel"] else {}
    return replace(model, config={**own, **(model.config or {})}, arguments={**model.arguments, **headless})


def _weights(place: Place) -> Path:
    check_weights(place)
    for name in _WEIGHTS:
        if (found := place.file(name)) is not None:
            return found
    raise ModelUnavailableError(
        f"{place.spelling} has no weights: expected one of {', '.join(_WEIGHTS)}; give --weights FILE or random"
    )
