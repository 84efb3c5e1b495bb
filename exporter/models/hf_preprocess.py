"""The preprocessing that a Hugging Face checkpoint carries in `preprocessor_config.json`."""

import json
from pathlib import Path
from typing import Any

from exporter.errors import ModelUnavailableError
from exporter.models.fetch import fetching
from exporter.models.hf_architectures import family_preprocess
from exporter.models.preprocess import Interpolation, Preprocess
from exporter.models.request import ResolvedRequest

PROCESSOR_FILE = "preprocessor_config.json"

# PIL's numbers, as the file stores them.
_INTERPOLATIONS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def read_preprocess(
    asked: ResolvedRequest, model_type: str, own_size: int, where: str, revision: str | None
) -> Preprocess:
    """How the checkpoint wants its photos, at the size that was asked for.

    Without a size the checkpoint's own input size is taken: what its processor crops to, or else the size in
    its configuration. (DINOv2 is trained at 518 pixels and its processor crops to 224.)

    Args:
        asked: The request.
        model_type: Family, for checkpoints that carry no processor.
        own_size: Image size in the configuration.
        where: Folder or hub repository.
        revision: Revision of the repository.

    Raises:
        ModelUnavailableError: The processor does something that is not supported.
    """
    data = _processor(asked, where, revision)
    if data is None:
        return family_preprocess(model_type, asked.image_size or own_size)
    if not data.get("do_rescale", True) or abs(data.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        raise ModelUnavailableError(
            f"{asked.spelling}: its {PROCESSOR_FILE} does not rescale pixels to [0, 1]"
        )
    resized = data.get("size", own_size)
    is_squash = isinstance(resized, dict) and "height" in resized
    resize_to = _side(resized, own_size)
    crops = not is_squash and data.get("do_center_crop", True)
    crop_to = _side(data.get("crop_size", own_size), own_size) if crops else resize_to
    size = asked.image_size or crop_to
    normalises = data.get("do_normalize", True)
    return Preprocess(
        image_size=(size, size),
        interpolation=_INTERPOLATIONS.get(data.get("resample", 3), "bicubic"),
        crop_fraction=min(1.0, crop_to / resize_to),
        mean=tuple(data.get("image_mean", (0.5,) * 3)) if normalises else (0.0,) * 3,
        std=tuple(data.get("image_std", (0.5,) * 3)) if normalises else (1.0,) * 3,
        resize_mode="squash" if is_squash else "crop",
    )


def _processor(asked: ResolvedRequest, where: str, revision: str | None) -> dict[str, Any] | None:
    path = _processor_path(asked, where, revision)
    if path is None or not path.is_file():
        return None
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelUnavailableError(
            f"{asked.spelling}: its {PROCESSOR_FILE} is not JSON ({error})"
        ) from error
    return data


def _processor_path(asked: ResolvedRequest, where: str, revision: str | None) -> Path | None:
    if Path(where).is_dir():
        return Path(where) / PROCESSOR_FILE
    from transformers.utils.hub import cached_file

    with fetching(f"the preprocessing of {asked.spelling}"):
        found = cached_file(
            where, PROCESSOR_FILE, revision=revision or "main", _raise_exceptions_for_missing_entries=False
        )
    return Path(found) if found else None


def _side(size: Any, own_size: int) -> int:
    """One side of what the file calls a size: a number, {height, width} or {shortest_edge}."""
    if isinstance(size, dict):
        return int(size.get("height") or size.get("shortest_edge") or own_size)
    return int(size)
