"""The recipe as a frozen tree of plain values: every key that a user can write, declared once.

Each field is a key; its `Key` says what else there is to say, and `keys` lists them all. In come YAML (`load`), Python
(`Recipe(...)`) and command-line options (`override`); each stage takes its own part, such as `recipe.model` for
`models.load` and `recipe.schedule` for `schedule.plan`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from exporter.forms import Forms, Precision
from exporter.local_path import LocalPath
from exporter.models import ModelRequest, OptionValue
from exporter.recipe.value_types import Amount, FolderName, Method, Passes, Percent, Targets
from exporter.recipe_key import Count, Key, Positive, Range
from exporter.schedule import ScheduleRequest

InputKind = Literal["float", "uint8"]
Layout = Literal["nchw", "nhwc"]

NO_WEIGHTS_FILE = ("pretrained", "random")


@dataclass(frozen=True, kw_only=True)
class ParityGate:
    """What an artifact may differ by from the eager program; the defaults are those of the precision.

    Attributes:
        max_abs_error: largest absolute difference over all outputs.
        mean_abs_error: mean absolute difference over all outputs.
        cosine: smallest cosine similarity of an output row.
    """

    max_abs_error: Amount | None = None
    mean_abs_error: Amount | None = None
    cosine: Annotated[float, Range(least=-1.0, most=1.0)] | None = None


@dataclass(frozen=True, kw_only=True)
class AccuracyGate:
    """What may be lost on labelled images.

    Attributes:
        max_drop: points of top-1 that an artifact may lose against the dense eager model.
    """

    max_drop: Annotated[Amount | None, Key(option="--max-drop")] = None


@dataclass(frozen=True, kw_only=True)
class AgreementGate:
    """On how many images an artifact and the dense eager model must predict the same; needs no labels.

    Attributes:
        min: least percent of images on which an artifact and the dense model predict the same class.
    """

    min: Annotated[Percent | None, Key(option="--min-agreement")] = None


@dataclass(frozen=True, kw_only=True)
class OverflowGate:
    """On how many images a method may want to keep more tokens than the schedule has slots for (ATS).

    Attributes:
        max: most percent of images that may need more tokens of a block than its schedule leaves, for a method that
            keeps another number of each image.
    """

    max: Annotated[Percent | None, Key(option="--max-overflow")] = None


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What to measure the artifacts on besides parity, and what they have to reach there.

    Attributes:
        data: images: a folder, with one sub-folder per class if they are labelled, or a CSV of image,label; by
            default images that ship with the model. Of a text encoder, a CSV of text,label, or of text_a,text_b,score.
        truncate: cut off texts of data that are longer than the engine takes; otherwise they are refused.
        unlabelled: take data as plain images, whatever its sub-folders are called.
        pairs: CSV of image,caption, for retrieval with a two-tower model.
        classes: text file with a class name per line, in the model's order: to match labels with, and for zero-shot
            classification with a two-tower model.
        labels_in_order: number the class folders of data in the order of their names; otherwise they are matched by
            name or index.
        templates: text file with a prompt per line, each with one {}; by default "a photo of a {}.".
        timesteps: steps of a diffusion model's scheduler that parity is verified at, such as 0,500,999; by default the
            first, the middle and the last one.
        accuracy: gate on top-1.
        agreement: gate on agreement with the dense model.
        overflow: gate on images that need more tokens than there are slots.
    """

    data: Annotated[LocalPath | None, Key(option="--data")] = None
    truncate: Annotated[bool, Key(option="--truncate")] = False
    unlabelled: Annotated[bool, Key(option="--unlabelled")] = False
    pairs: Annotated[LocalPath | None, Key(option="--pairs")] = None
    classes: Annotated[LocalPath | None, Key(option="--classes")] = None
    labels_in_order: Annotated[bool, Key(option="--labels-in-order")] = False
    templates: Annotated[LocalPath | None, Key(option="--templates")] = None
    timesteps: Annotated[tuple[Count, ...], Key(option="--timesteps")] = ()
    accuracy: AccuracyGate = field(default_factory=AccuracyGate)
    agreement: AgreementGate = field(default_factory=AgreementGate)
    overflow: OverflowGate = field(default_factory=OverflowGate)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Images that ranges of quantised activations are taken from, and that options of a method and slots are chosen on.

    Attributes:
        data: images for int8, fp8, slots_for and options that are auto: a folder or a CSV; by default images that ship
            with the model. Of a text encoder, a CSV with a column text, for int8 and fp8.
        images: how many images or texts are calibrated on, the first ones.
    """

    data: Annotated[LocalPath | None, Key(option="--calibration")] = None
    images: Annotated[Positive, Key(option="--calibration-images")] = 128


@dataclass(frozen=True, kw_only=True)
class SpeedGate:
    """A race of the engines against dense ones of the same targets when an export ends, and a gate on it.

    Attributes:
        min_speedup: how many times faster than the dense engine of the same target an artifact must be.
        race: whether there is a race at all; by default for a gate, and for the shipped model vit_fashion.
    """

    min_speedup: Annotated[Annotated[float, Range(above=0.0)] | None, Key(option="--min-speedup")] = None
    race: Annotated[bool | None, Key(option="--bench/--no-bench")] = None


@dataclass(frozen=True, kw_only=True)
class TokenOptimizer:
    """How much is saved and by which method, in place of method and schedule; the words of other optimisers' files.

    Attributes:
        method: how tokens are chosen.
        reduction_ratio: as in the schedule, share of the dense model's multiply-accumulates to save.
        adaptive: whether that is a mean: a ladder of engines that save half, all and one and a half of it, of which
            each image gets the cheapest whose answer is good enough.
    """

    method: Annotated[Method, Key()] = "tome"
    reduction_ratio: Annotated[Annotated[float, Range(least=0.0, most=1.0)], Key()]
    adaptive: Annotated[bool, Key()] = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to build from which model, and the gates that it has to pass.

    From Python: `Recipe(model=ModelRequest(model="vit_b16"), schedule=ScheduleRequest(r=8))`, then `check` it
    if its values come from outside.

    Attributes:
        name: folder name of the bundle; by default made of model, method and schedule, such as vit_b16-tome-r8.
        model: the model's name, or a mapping of name, options and preprocess.
        with_text: put the model's text tower beside its image tower, in the bundle's folder `text`.
        method: how tokens are chosen, and merged or dropped; `python -m exporter methods` lists them.
        method_options: the method's own options, such as margin=0.9 of pitome.
        proportional_attention: add log(size) of merged tokens to the attention logits; by default as the weight family
            was measured to need it.
        schedule: which block merges how many tokens; left out: none.
        adaptive: build a ladder of engines that save the schedule's reduction_ratio in the mean over the images of
            validate.data.
        input: what the artifact is fed with: normalised floats, or bytes 0..255 that it normalises itself.
        layout: axis order of the images; nhwc only for bytes.
        batch: images per call.
        dynamic_batch: leave the batch size open (tokens stay static); batch is then 1 or left out.
        precision: type that the artifact computes in.
        targets: engines to build.
        prepare: where an engine cannot be built here, put what builds it elsewhere into the bundle (trt, aoti).
        engines: options of the engines, such as trt.workspace_mb=4096; what is not given has the target's default.
        lowering: forms to use instead of those that were measured to be fastest on each target.
        calibration: images that the ranges of int8 and fp8 are taken from, and that options and slots are chosen on.
        disable_passes: exact passes to leave out.
        parity: gate on the difference to the eager program.
        validate: what to measure the artifacts on, and gates on it.
        bench: race against dense engines, and a gate on speed.
    """

    name: Annotated[FolderName | None, Key(option="--name", sweep="apart")] = None
    model: ModelRequest
    with_text: Annotated[bool, Key(path="")] = False  # `tower: both` in a recipe
    method: Annotated[Method, Key(option="--method", sweep="axis")] = "tome"
    method_options: Annotated[
        Mapping[str, OptionValue],
        Key(option="--method-option", metavar="NAME=VALUE", example="margin=0.9", sweep="axis"),
    ] = field(default_factory=dict)
    proportional_attention: Annotated[
        bool | None, Key(option="--proportional-attention/--no-proportional-attention")
    ] = None
    schedule: Annotated[ScheduleRequest, Key(sweep="axis")] = field(default_factory=ScheduleRequest)
    adaptive: Annotated[bool, Key(path="")] = False  # of `token_optimizer` in a recipe
    input: Annotated[InputKind, Key(option="--input")] = "float"
    layout: Annotated[Layout, Key(option="--layout")] = "nchw"
    batch: Annotated[Positive, Key(option="--batch")] = 1
    dynamic_batch: Annotated[bool, Key(option="--dynamic-batch/--static-batch")] = False
    precision: Annotated[Precision, Key(option="--precision", sweep="axis")] = "fp32"
    targets: Annotated[Targets, Key(option="--target", sweep="axis")] = ("onnx",)
    prepare: Annotated[bool, Key(option="--prepare/--no-prepare", sweep="apart")] = False
    engines: Annotated[
        Mapping[str, Any],
        Key(option="--engine-option", metavar="TARGET.NAME=VALUE", example="trt.workspace_mb=4096"),
    ] = field(default_factory=dict)
    lowering: Annotated[
        Mapping[str, str],
        Key(option="--lowering", metavar="NAME=FORM", example="mask=folded", values=Forms),
    ] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    disable_passes: Annotated[Passes, Key(option="--disable-pass")] = ()
    parity: Annotated[ParityGate, Key(sweep="apart")] = field(default_factory=ParityGate)
    validate: Annotated[Validation, Key(sweep="apart")] = field(default_factory=Validation)
    bench: Annotated[SpeedGate, Key(sweep="apart")] = field(default_factory=SpeedGate)


def text_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the text tower beside an image tower: as it is, for the same targets."""
    return replace(
        recipe,
        model=replace(recipe.model, tower="text", outputs="own", image_size=None, preprocess=None),
        with_text=False,
        name=None,
        schedule=ScheduleRequest(),
        input="float",
        layout="nchw",
        validate=Validation(),
        bench=SpeedGate(),
    )
