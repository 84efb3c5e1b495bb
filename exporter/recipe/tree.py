"""The recipe as a frozen tree of plain values: the whole of what a user can ask for, checked and complete.

Where it stands on the road: in come YAML (`load`), Python (`Recipe(...)`) and command-line options
(`override`); out go the parts that each stage takes for itself, such as `recipe.model` for `models.load` and
`recipe.schedule` for `schedule.plan`. No stage takes the whole recipe.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter.models import ModelRequest
from exporter.schedule import ScheduleRequest

Precision = Literal["fp32", "fp16", "bf16"]
InputKind = Literal["float", "uint8"]
Layout = Literal["nchw", "nhwc"]

NO_WEIGHTS_FILE = ("pretrained", "random")


@dataclass(frozen=True, kw_only=True)
class ParityGate:
    """What an artifact may differ by from the eager program; None is the default of the recipe's precision.

    Attributes:
        max_abs_error: largest absolute difference over all outputs.
        mean_abs_error: mean absolute difference over all outputs.
        cosine: smallest cosine similarity of an output row.
    """

    max_abs_error: float | None = None
    mean_abs_error: float | None = None
    cosine: float | None = None


@dataclass(frozen=True, kw_only=True)
class AccuracyGate:
    """Labelled images to measure on, and what may be lost.

    Attributes:
        data: folder with one sub-folder of images per class; None measures only on images that ship with the
            model.
        max_drop: points of top-1 that the artifact may lose against the dense eager model; None gates
            nothing.
    """

    data: str | None = None
    max_drop: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what is built and what it has to prove.

    From Python: `Recipe(model=ModelRequest(model="vit_b16"), schedule=ScheduleRequest(r=8))`, then `check` it
    if its values come from outside.

    Attributes:
        model: which model, weights, tower and image size.
        name: folder name of the bundle; None stands for `default_name`.
        method: how tokens are matched and merged.
        method_options: the method's own numbers, such as PiToMe's margin.
        proportional_attention: add log(size) to the attention logits; None is the weight family's default.
        schedule: which block merges how many tokens.
        input: what the artifact is fed with: normalised floats, or bytes 0..255 that it normalises itself.
        layout: axis order of the images; NHWC only for bytes.
        batch: images per call.
        dynamic_batch: leave the batch size open (tokens stay static).
        precision: type that the artifact computes in.
        targets: engines to build.
        disable_passes: exact passes to leave out.
        parity: gate on the difference to the eager program.
        accuracy: gate on labelled images.
    """

    model: ModelRequest
    name: str | None = None
    method: str = "tome"
    method_options: Mapping[str, float] = field(default_factory=dict)
    proportional_attention: bool | None = None
    schedule: ScheduleRequest = field(default_factory=ScheduleRequest)
    input: InputKind = "float"
    layout: Layout = "nchw"
    batch: int = 1
    dynamic_batch: bool = False
    precision: Precision = "fp32"
    targets: tuple[str, ...] = ("onnx",)
    disable_passes: tuple[str, ...] = ()
    parity: ParityGate = field(default_factory=ParityGate)
    accuracy: AccuracyGate = field(default_factory=AccuracyGate)


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
        str(model.image_size) if model.image_size is not None else None,
        _merging(recipe),
        "uint8" if recipe.input == "uint8" else None,
        recipe.layout if recipe.layout != "nchw" else None,
        recipe.precision if recipe.precision != "fp32" else None,
        f"batch{recipe.batch}" if recipe.batch != 1 else None,
        "dynamic" if recipe.dynamic_batch else None,
    ]
    return "-".join(part for part in parts if part is not None)


def _merging(recipe: Recipe) -> str:
    schedule = recipe.schedule
    if not asks_to_merge(schedule):
        return "dense"
    if schedule.r_per_layer is not None:
        return f"{recipe.method}-layers-{_digest(schedule.r_per_layer)}"
    if schedule.keep_per_layer is not None:
        return f"{recipe.method}-keep-{_digest(schedule.keep_per_layer)}"
    kind = "" if schedule.kind == "constant" else f"-{schedule.kind}"
    align = "" if schedule.align is None else f"-align{schedule.align}"
    return f"{recipe.method}-r{schedule.r}{kind}{align}"


def asks_to_merge(schedule: ScheduleRequest) -> bool:
    """Whether the request merges anything at all, as far as this is known before the model is."""
    if schedule.keep_per_layer is not None:
        return True
    return any(schedule.r_per_layer) if schedule.r_per_layer is not None else schedule.r > 0


def _digest(numbers: tuple[int, ...] | tuple[float, ...]) -> str:
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:6]
