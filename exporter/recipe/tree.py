"""The recipe as a frozen tree of plain values: the whole of what a user can ask for, checked and complete.

Where it stands on the road: in come YAML (`load`), Python (`Recipe(...)`) and command-line options
(`override`); out go the parts that each stage takes for itself, such as `recipe.model` for `models.load` and
`recipe.schedule` for `schedule.plan`. No stage takes the whole recipe.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from exporter.forms import Precision
from exporter.local_path import LocalPath
from exporter.models import ModelRequest, size_text
from exporter.schedule import ScheduleRequest

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
    """What may be lost: points of top-1 of an artifact against the dense eager model; None gates nothing."""

    max_drop: float | None = None


@dataclass(frozen=True, kw_only=True)
class AgreementGate:
    """Percent of images on which an artifact and the dense eager model must say the same; None gates nothing."""

    min: float | None = None


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Images and texts to measure an artifact on, beside parity, and what it has to reach there.

    Attributes:
        data: images: a folder, with one sub-folder per class if they are labelled, or a CSV of image and label;
            None measures only on data that ships with the model.
        unlabelled: take `data` as plain images, whatever its sub-folders are called.
        pairs: CSV of image and caption, for retrieval with a two-tower model.
        classes: text file with a class name per line, in the model's order: what labels are matched with, and what a
            two-tower model classifies by (zero-shot).
        labels_in_order: number class folders in the order of their names; otherwise they are matched by name or index.
        templates: text file with a prompt per line, each with one {}; None stands for "a photo of a {}.".
        accuracy: gate on top-1.
        agreement: gate on agreement with the dense model, which needs no labels.
    """

    data: LocalPath | None = None
    unlabelled: bool = False
    pairs: LocalPath | None = None
    classes: LocalPath | None = None
    labels_in_order: bool = False
    templates: LocalPath | None = None
    accuracy: AccuracyGate = field(default_factory=AccuracyGate)
    agreement: AgreementGate = field(default_factory=AgreementGate)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Images that the ranges of quantised activations are taken from.

    Attributes:
        data: a folder or CSV of images; None stands for images that ship with the model.
        images: how many of them, the first ones.
    """

    data: LocalPath | None = None
    images: int = 128


@dataclass(frozen=True, kw_only=True)
class SpeedGate:
    """How many times faster than the dense engine of the same target an artifact must be; None gates nothing."""

    min_speedup: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what is built and what it has to prove.

    From Python: `Recipe(model=ModelRequest(model="vit_b16"), schedule=ScheduleRequest(r=8))`, then `check` it
    if its values come from outside.

    Attributes:
        model: which model, weights, tower and image size.
        with_text: put the model's text tower beside its image tower, in the bundle's `text` folder.
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
        prepare: what to do where an engine cannot be built here: put what builds it elsewhere into the bundle.
        engines: options of the targets that were given any, each in the target's own type.
        lowering: forms to use instead of each target's own, such as `{"mask": "folded"}`.
        calibration: for `int8`.
        disable_passes: exact passes to leave out.
        parity: gate on the difference to the eager program.
        validate: what to measure the artifacts on, and gates on it.
        bench: gate on speed; without one, `run` measures none.
    """

    model: ModelRequest
    with_text: bool = False
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
    prepare: bool = False
    engines: Mapping[str, Any] = field(default_factory=dict)
    lowering: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    disable_passes: tuple[str, ...] = ()
    parity: ParityGate = field(default_factory=ParityGate)
    validate: Validation = field(default_factory=Validation)
    bench: SpeedGate = field(default_factory=SpeedGate)


def text_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the text tower beside an image tower: as it is, for the same targets."""
    return replace(
        recipe,
        model=replace(recipe.model, tower="text", image_size=None, preprocess=None),
        with_text=False,
        name=None,
        schedule=ScheduleRequest(),
        input="float",
        layout="nchw",
        validate=Validation(),
        bench=SpeedGate(),
    )


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
        merging_name(recipe),
        "uint8" if recipe.input == "uint8" else None,
        recipe.layout if recipe.layout != "nchw" else None,
        recipe.precision if recipe.precision != "fp32" else None,
        f"batch{recipe.batch}" if recipe.batch != 1 else None,
        "dynamic" if recipe.dynamic_batch else None,
    ]
    return "-".join(part for part in parts if part is not None)


def merging_name(recipe: Recipe) -> str:
    """What a recipe merges, as part of a name: `tome-r8`, `pitome-r8-decreasing`, `dense`."""
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
