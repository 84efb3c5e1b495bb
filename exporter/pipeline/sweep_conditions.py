"""What decides the results of a sweep besides its points, and so which finished points are still valid.

In: the recipe that all points share, its model and images. Out: `Conditions`, the key of the sweep's cache.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from exporter.machine import cpu_model, usable_cores
from exporter.models import LoadedModel, ModelRequest, safe_name
from exporter.packages import toolchain
from exporter.pipeline.material import Material
from exporter.pipeline.plan import Planned
from exporter.pipeline.racing import BenchOptions
from exporter.recipe import NO_WEIGHTS_FILE, Recipe, local_place, recipe_keys, recipe_to_mapping
from exporter.sweep import SWEEP_FILE, Conditions, read_record


def recorded_weights(folder: Path) -> str | None:
    """The hash of the weights that a sweep's folder is about, or None where nothing was swept there yet."""
    return read_record(folder).weights_sha256 if (folder / SWEEP_FILE).is_file() else None


def name_of(model: str) -> str:
    """A model's name without its folder: `my-clip` for `hf:./my-clip`."""
    place = local_place(model, here=True)
    last = place[1] if place is not None else model.rpartition(":")[2]
    return safe_name(Path(last).name.removesuffix(".pt2"))


def _identity(request: ModelRequest, model: LoadedModel) -> dict[str, object]:
    """What decides a model besides its weights; for a local model its preprocessing instead of its path."""
    place = local_place(request.model, here=True)
    return {
        **asdict(request),
        "model": request.model if place is None else f"{model.source}, local",
        "weights": request.weights if request.weights in NO_WEIGHTS_FILE else "file",
        "preprocess": None if model.preprocess is None else model.preprocess.to_dict(),
    }


def shared_values(recipe: Recipe) -> dict[str, object]:
    """The values that decide what is built and that all points share, beside the model's."""
    mapping = recipe_to_mapping(recipe)
    deciding = [key for key in recipe_keys() if key.key.sweep is None and key.attributes[0] != "model"]
    return {name: mapping[name] for name in dict.fromkeys(key.path[0] for key in deciding)}


def sweep_conditions(
    recipe: Recipe, planned: Planned, found: Material | None, targets: Sequence[str], options: BenchOptions
) -> Conditions:
    """What all points of a sweep share; results under other conditions are not reused.

    Args:
        recipe: of the points.
        planned: its model.
        found: what points are measured on.
        targets: engines of the points.
        options: how they are timed.
    """
    pairs = found.pairs if found is not None else None
    building: dict[str, object] = {
        "model": _identity(recipe.model, planned.model),
        "weights_sha256": planned.model.weights_sha256,
        "images": [images.fingerprint for images in found.sets.values()] if found is not None else [],
        "classes": list(found.class_names) if found is not None else [],
        "templates": list(found.templates) if found is not None else [],
        "captions": list(pairs.texts) if pairs is not None else [],
        "pairs": list(pairs.pairs) if pairs is not None else [],
        **(
            {"texts": asdict(found.texts_alone)}
            if found is not None and found.texts_alone is not None
            else {}
        ),
        **shared_values(recipe),
        "toolchain": toolchain(targets),
    }
    timing: dict[str, object] = {"cpu": cpu_model(), "cores": len(usable_cores()), **asdict(options)}
    return Conditions(building=building, timing=timing)
