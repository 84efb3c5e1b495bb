"""Export a model that is in memory: it is captured into a file, which is exported as any saved program is."""

import copy
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exporter.bundle import Bundle
from exporter.capture import EXAMPLE_BATCH, trace
from exporter.errors import UsageError, quoted
from exporter.models import PREPROCESS_FILE
from exporter.pipeline.export import export
from exporter.recipe import recipe_from_mapping
from exporter.records import write_whole


def optimize(
    model: nn.Module,
    images: Tensor,
    folder: str | Path,
    *,
    preprocess: Mapping[str, Any] | None = None,
    force: bool = False,
    **recipe: Any,
) -> Bundle:
    """Build engines of a model that is in memory.

    >>> bundle = exporter.optimize(
    ...     model, images, "engines", token_optimizer={"method": "tome", "reduction_ratio": 0.3}, precision="fp16"
    ... )

    The folder gets `model.pt2`, the captured model, which `validate` and `bench` read again, and the bundle.

    Args:
        model: float32, takes one tensor and returns a tensor or a tuple of tensors; it stays as it is.
        images: float32 (B, C, H, W); only the shape of one of them matters.
        folder: for the program and the bundle.
        preprocess: how photos become its input, by the keys of a preprocessing file, such as mean and std; without it,
            no engine can be measured on photos.
        force: replace what an earlier call wrote there.
        recipe: keys of a recipe with their values, such as `token_optimizer`, `schedule`, `precision`, `targets`.

    Returns:
        The bundle, in a folder of its own inside of `folder`.

    Raises:
        RecipeError: a key or a value that no recipe has.
        ModelUnavailableError: the preprocessing says something else.
        UsageError: the folder has a program already, or the images are no such tensor.
        UnsupportedGraphError: the model cannot be captured.
        ExportError: as `export` raises.
    """
    if images.dim() != 4 or images.dtype != torch.float32:
        raise UsageError(
            f"images: expected float32 (batch, channels, height, width), got {images.dtype} {tuple(images.shape)}"
        )
    if "model" in recipe:
        raise UsageError(
            "model: expected it as the first argument only, got it as a key of the recipe as well"
        )
    place = Path(folder) / "model.pt2"
    asked = recipe_from_mapping({**recipe, "model": str(place.absolute())}, "optimize")
    if place.exists() and not force:
        raise UsageError(f"{quoted(place)} is there already; give another folder, or force=True")
    with _replaced(place, _program(model, images, preprocess)):
        return export(asked, Path(folder) / "bundle", force=force)


def _program(model: nn.Module, images: Tensor, preprocess: Mapping[str, Any] | None) -> bytes:
    """The model as `torch.export.save` writes it."""
    example = torch.zeros(EXAMPLE_BATCH, *images.shape[1:])
    extra = {} if preprocess is None else {PREPROCESS_FILE: json.dumps(dict(preprocess))}
    data = io.BytesIO()
    torch.export.save(trace(copy.deepcopy(model).cpu(), (example,)), data, extra_files=extra)
    return data.getvalue()


@contextmanager
def _replaced(place: Path, content: bytes) -> Iterator[None]:
    """A file with new content; what was there before comes back if the block fails."""
    is_new = not place.parent.exists()
    place.parent.mkdir(parents=True, exist_ok=True)
    before = place.with_name(f".{place.name}.before")
    before.unlink(missing_ok=True)
    if place.exists():
        before.hardlink_to(place)
    write_whole(place, content)
    try:
        yield
    except BaseException:
        place.unlink()
        if before.exists():
            before.rename(place)
        elif is_new:
            with suppress(OSError):  # something else was put there meanwhile
                place.parent.rmdir()
        raise
    before.unlink(missing_ok=True)
