"""Names that say what a recipe asks for: of a bundle's folder, and of a reduced form of a model."""

import hashlib

from exporter.models import OptionValue, size_text
from exporter.recipe.tree import Recipe
from exporter.schedule import ScheduleRequest


def default_name(recipe: Recipe, model_name: str) -> str:
    """The bundle's folder name when the recipe gives none, such as `vit_b16-tome-r8` or `vit_b16-dense`.

    What differs from the defaults is appended, so that two different recipes rarely share a folder.

    Args:
        recipe: the recipe.
        model_name: the loaded model's file-system safe name; a text tower's says that it is one.
    """
    model = recipe.model
    parts = [
        model_name,
        size_text(model.image_size) if model.image_size is not None else None,
        f"latents{size_text(model.latent_size)}" if model.latent_size is not None else None,
        merging_name(recipe),
        f"{model.outputs}-outputs" if model.outputs != "own" else None,
        "uint8" if recipe.input == "uint8" else None,
        recipe.layout if recipe.layout != "nchw" else None,
        recipe.precision if recipe.precision != "fp32" else None,
        f"batch{recipe.batch}" if recipe.batch != 1 else None,
        "dynamic" if recipe.dynamic_batch else None,
    ]
    return "-".join(part for part in parts if part is not None)


def merging_name(recipe: Recipe) -> str:
    """How a recipe reduces tokens, as part of a name: `tome-r8-decreasing`, `evit-r8-fused-false`, `dense`."""
    if recipe.schedule.is_dense:
        return "dense"
    return "-".join((recipe.method, _schedule_name(recipe.schedule), *_set_options(recipe)))


def _schedule_name(schedule: ScheduleRequest) -> str:
    if schedule.form == "r_per_layer":
        lists = schedule.r_per_layer if schedule.drop_per_layer is None else _both(schedule)
        return f"layers-{_digest(lists)}"
    if schedule.form == "keep_per_layer":
        return f"keep-{_digest(schedule.keep_per_layer)}"
    if schedule.form == "published":
        return str(schedule.published)
    if schedule.form == "ratio":
        return f"ratio{schedule.ratio:g}"
    if schedule.form == "reduction_ratio":
        return f"reduced{schedule.reduction_ratio:g}"
    if schedule.form == "keep_rate":
        return f"rate{schedule.keep_rate:g}{_places(schedule)}"
    if schedule.form == "slots_for":
        return f"slots{schedule.slots_for:g}{_places(schedule)}"
    kind = "" if schedule.kind == "constant" else f"-{schedule.kind}"
    align = "" if schedule.align is None else f"-align{schedule.align}"
    drop = "" if schedule.drop_share is None else f"-drop{schedule.drop_share:g}"
    return f"r{schedule.r}{kind}{align}{drop}"


def _places(schedule: ScheduleRequest) -> str:
    return "" if schedule.at is None else f"-{_digest(schedule.at)}"


def _both(schedule: ScheduleRequest) -> tuple[object, ...]:
    return schedule.r_per_layer, schedule.drop_per_layer


def _digest(numbers: object) -> str:
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:6]


def _set_options(recipe: Recipe) -> list[str]:
    """The method's options that are not at their defaults, by name: `fused-false`, `margin0.8`."""
    if not recipe.method_options:
        return []
    from exporter.reduction import method

    chosen = method(recipe.method)
    defaults, values = chosen.chosen({}), chosen.chosen(recipe.method_options)
    return [f"{name}{_value_name(values[name])}" for name in sorted(values) if values[name] != defaults[name]]


def _value_name(value: OptionValue) -> str:
    """A number follows the name of its option as in `r8`, anything else after a dash."""
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value) if type(value) is int else f"-{str(value).lower()}"
