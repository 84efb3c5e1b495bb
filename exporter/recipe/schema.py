"""The recipe's YAML as pydantic models: names, types, ranges and descriptions of every key.

Where it stands on the road: the edge. `load` checks plain values against `RecipeDocument` here and converts
the result once into the frozen tree; nothing else sees pydantic. The same models give editors their JSON
Schema.
"""

import json
import math
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from exporter.errors import nearest
from exporter.forms import Precision
from exporter.recipe.document import Document, refuse
from exporter.recipe.engine_documents import EnginesDocument, FormsDocument
from exporter.recipe.tree import NO_WEIGHTS_FILE, InputKind, Layout
from exporter.recipe.vocabulary import METHODS, PASSES, TARGETS
from exporter.reduction import method
from exporter.schedule import ScheduleKind

SCHEMA_VERSION = 1
_LARGEST = 2**31 - 1
_UNPRINTABLE = ("Cc", "Zl", "Zp")  # control characters and line separators


def _printable(text: str) -> str:
    if not text or any(unicodedata.category(letter) in _UNPRINTABLE for letter in text):
        raise refuse(f"expected text, not empty and without control characters, got {text[:40]!r}")
    return text


def _version(version: int) -> int:
    if version != SCHEMA_VERSION:
        hint = "upgrade the exporter" if version > SCHEMA_VERSION else f"write {SCHEMA_VERSION}"
        raise refuse(f"this exporter reads schema version {SCHEMA_VERSION}, got {version}; {hint}")
    return version


def _one_of(kind: str, names: Iterable[str]) -> AfterValidator:
    known = tuple(names)

    def check(name: str) -> str:
        if name not in known:
            raise refuse(f'unknown {kind} "{name[:40]}"; known: {", ".join(known)}.{nearest(name, known)}')
        return name

    return AfterValidator(check)


def _unique(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise refuse(f"expected every name once, got {', '.join(twice)} more than once")
    return names


def _percent(value: float) -> float:
    if 0 < value <= 1:
        raise refuse(f"expected percent, from 0 to 100, such as {100 * value:g}, got {value:g}")
    return value


def _keeps(values: Any) -> list[int] | list[float]:
    if not isinstance(values, list) or not values:
        raise refuse("expected a list with one token count, or one fraction, per block")
    if all(type(value) is int and 1 <= value <= _LARGEST for value in values):
        return values
    if all(type(value) is float and 0.0 < value <= 1.0 for value in values):
        return values
    raise refuse("expected only token counts (integers >= 1) or only fractions (with a point, in (0, 1])")


def _image_size(value: Any) -> Any:
    if value is None or (type(value) is int and 1 <= value <= _LARGEST):
        return value
    if isinstance(value, list) and len(value) == 2 and all(type(side) is int and side >= 1 for side in value):
        return value
    raise refuse(f"expected an integer >= 1, [height, width] or null, got {json.dumps(value)[:60]}")


def _option_value(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _printable(value)
    numbers = value if isinstance(value, list) and value else [value]
    if all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        return value
    raise refuse(f"expected true, false, null, a number, text or a list of numbers, got {str(value)[:40]}")


def _named_model(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping):
        kind = "a list" if isinstance(value, list) else json.dumps(value)[:60]
        raise refuse(f"expected text, or a mapping of name, options and preprocess, got {kind}")
    return value


Text = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Positive = Annotated[int, Field(ge=1, le=_LARGEST)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0.0, le=100.0), AfterValidator(_percent)]
Amount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Method = Annotated[str, _one_of("method", METHODS), Field(json_schema_extra={"enum": list(METHODS)})]
Target = Annotated[str, _one_of("target", TARGETS), Field(json_schema_extra={"enum": list(TARGETS)})]
Pass = Annotated[str, _one_of("pass", PASSES), Field(json_schema_extra={"enum": list(PASSES)})]
Targets = Annotated[list[Target], Field(min_length=1), AfterValidator(_unique)]
Passes = Annotated[list[Pass], AfterValidator(_unique)]
OptionValue = Annotated[
    bool | int | float | str | list[int | float] | None,
    PlainValidator(_option_value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["boolean", "number", "string", "null"]},
                {"type": "array", "items": {"type": "number"}, "minItems": 1},
            ]
        }
    ),
]
ImageSize = Annotated[
    int | list[int] | None,
    PlainValidator(_image_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 1},
                    "minItems": 2,
                    "maxItems": 2,
                },
                {"type": "null"},
            ]
        }
    ),
]
SchemaVersion = Annotated[int, AfterValidator(_version), Field(json_schema_extra={"const": SCHEMA_VERSION})]
Keeps = Annotated[
    list[int] | list[float],
    PlainValidator(_keeps),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "anyOf": [
                {"items": {"type": "integer", "minimum": 1}},
                {"items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}},
            ],
        }
    ),
]


class ModelDocument(Document):
    """A model that has more said about it than its name."""

    name: Text
    """Alias (vit_b16), source:id (timm, torchvision, hf, open_clip), or .pt2 file relative to the recipe."""
    options: dict[Text, OptionValue] = Field(default_factory=dict)
    """Free parameters of the architecture by the source library's own names; the rest is taken from the weights."""
    preprocess: Text | None = None
    """JSON file with the keys of a bundle's preprocess.json, to use instead of what the source says."""


class ScheduleDocument(Document):
    """Exactly one of three forms: r (with kind and align), r_per_layer, or keep_per_layer."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["r"], "properties": {"r_per_layer": False, "keep_per_layer": False}},
                {"required": ["r_per_layer"], "maxProperties": 1},
                {"required": ["keep_per_layer"], "maxProperties": 1},
            ]
        }
    )

    kind: ScheduleKind = "constant"
    """How r is spread over the blocks."""
    r: Count = 0
    """Tokens merged per block on average; 0 is the dense model."""
    align: Positive | None = None
    """Where possible, later token counts are multiples of this."""
    r_per_layer: Annotated[list[Count], Field(min_length=1)] = Field(default_factory=list)
    """Tokens merged in each block, one entry per block."""
    keep_per_layer: Keeps = Field(default_factory=list)
    """Per block: tokens left after its merge (integers), or fraction kept (with a point, in (0, 1])."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = self.model_fields_set
        lists = [key for key in ("r_per_layer", "keep_per_layer") if key in given]
        if len(lists) == 1 and len(given) > 1:
            extra = next(key for key in ("kind", "r", "align") if key in given)
            raise refuse(f"{lists[0]} stands alone; remove {extra}")
        if len(lists) > 1:
            raise refuse("expected one of r_per_layer and keep_per_layer, got both")
        if not lists and "r" not in given:
            raise refuse("expected one of r, r_per_layer and keep_per_layer, got none")
        return self


class ParityDocument(Document):
    """What an artifact may differ by from the eager program; null is the default of the precision."""

    max_abs_error: Amount | None = None
    """Largest absolute difference over all outputs."""
    mean_abs_error: Amount | None = None
    """Mean absolute difference over all outputs."""
    cosine: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Smallest cosine similarity of an output row."""


class AccuracyDocument(Document):
    """What may be lost on labelled images."""

    max_drop: Amount | None = None
    """Points of top-1 that the artifact may lose against the dense eager model; null gates nothing."""


class AgreementDocument(Document):
    """On how many images artifact and dense eager model must say the same; needs no labels."""

    min: Percent | None = None
    """Percent of images with the same top-1; null gates nothing."""


class ValidationDocument(Document):
    """What to measure the artifacts on, and what they have to reach there."""

    data: Text | None = None
    """Folder (a sub-folder per class if labelled) or CSV of image,label; null: images that ship with the model."""
    unlabelled: bool = False
    """Take data as plain images, whatever its sub-folders are called."""
    pairs: Text | None = None
    """CSV of image,caption for retrieval with a two-tower model, relative to the recipe."""
    classes: Text | None = None
    """Text file with a class name per line, in the model's order, relative to the recipe; zero-shot for two towers."""
    labels_in_order: bool = False
    """Number class folders in the order of their names, although nothing says that the model does."""
    templates: Text | None = None
    """Text file with a prompt per line, each with one {}, relative to the recipe."""
    accuracy: AccuracyDocument = AccuracyDocument()
    """Gate on top-1."""
    agreement: AgreementDocument = AgreementDocument()
    """Gate on agreement with the dense model."""


class CalibrationDocument(Document):
    """What the ranges of quantised activations are taken from."""

    data: Text | None = None
    """Folder or CSV of images, relative to the recipe; null: images that ship with the model."""
    images: Positive = 128
    """How many of them, the first ones."""


class SpeedDocument(Document):
    """Gate on measured speed."""

    min_speedup: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """How many times faster than the dense engine of the same target; null measures nothing."""


class RecipeDocument(Document):
    """What to build out of which model, and what it has to prove."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    """Version of this file format."""
    name: FolderName | None = None
    """Folder name of the bundle; null: made of model, method and schedule, such as vit_b16-tome-r8."""
    model: Annotated[
        ModelDocument, BeforeValidator(_named_model, json_schema_input_type=Text | ModelDocument)
    ]
    """Its name, or a mapping of name, options and preprocess."""
    weights: Text = NO_WEIGHTS_FILE[0]
    """pretrained, random, or a file of weights (.safetensors, .pth, .pt, .bin, .ckpt) relative to the recipe."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of random weights."""
    tower: Literal["image", "text", "both"] = "image"
    """Which tower of a CLIP; the text tower is exported as it is, with `both` into the bundle's folder `text`."""
    image_size: ImageSize = None
    """Side of the square input in pixels, or [height, width]; null: the model's own."""
    method: Method = "tome"
    """How tokens are matched and merged."""
    method_options: dict[Text, Number] = Field(default_factory=dict)
    """The method's own numbers, such as pitome's margin."""
    proportional_attention: bool | None = None
    """Add log(size) to the attention logits; null: by weight family."""
    schedule: ScheduleDocument = Field(default_factory=lambda: ScheduleDocument(r=0))
    """Which block merges how many tokens; left out: none."""
    input: InputKind = "float"
    """What the artifact is fed with: normalised floats, or bytes 0..255 that it normalises itself."""
    layout: Layout = "nchw"
    """Axis order of the images; nhwc only with input: uint8."""
    batch: Positive = 1
    """Images per call."""
    dynamic_batch: bool = False
    """Leave the batch size open (tokens stay static); batch is then 1 or left out."""
    precision: Precision = "fp32"
    """Type that the artifact computes in."""
    targets: Targets = Field(default=["onnx"])
    """Engines to build."""
    prepare: bool = False
    """Where an engine cannot be built here: put what builds it on its own machine into the bundle (trt)."""
    engines: EnginesDocument = EnginesDocument()
    """Options of the engines, by target."""
    lowering: FormsDocument = FormsDocument()
    """Forms to use instead of those that were measured to be fastest on each target."""
    calibration: CalibrationDocument = CalibrationDocument()
    """Images that the ranges of int8 are taken from."""
    disable_passes: Passes = Field(default=[])
    """Exact passes to leave out."""
    parity: ParityDocument = ParityDocument()
    """Gate on the difference to the eager program."""
    validation: ValidationDocument = Field(default=ValidationDocument(), alias="validate")
    """What to measure the artifacts on, and gates on it."""
    bench: SpeedDocument = SpeedDocument()
    """Gate on speed."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.layout == "nhwc" and self.input != "uint8":
            raise refuse("layout: nhwc needs input: uint8; float images are nchw")
        if self.dynamic_batch and self.batch != 1:
            raise refuse(f"batch: expected 1 or nothing with dynamic_batch: true, got {self.batch}")
        if self.tower == "text":
            self._plain_text_tower()
        if self.precision == "int8" and self.tower != "image":
            raise refuse("precision: int8 is calibrated on images; expected tower: image")
        self._known_options()
        return self

    def _known_options(self) -> None:
        known = method(self.method).defaults
        for name in self.method_options:
            if name not in known:
                options = ", ".join(known) or "none"
                hint = nearest(name, known)
                raise refuse(
                    f"method_options.{name}: unknown option of {self.method}; known: {options}.{hint}"
                )

    def _plain_text_tower(self) -> None:
        schedule = self.schedule
        if schedule.keep_per_layer or any(schedule.r_per_layer or [schedule.r]):
            raise refuse("schedule: the text tower is exported as it is; expected r: 0 with tower: text")
        if self.input != "float" or self.image_size is not None:
            key = "input" if self.input != "float" else "image_size"
            raise refuse(f"{key}: means nothing for token ids; remove it with tower: text")


@cache
def document_schema() -> dict[str, Any]:
    """JSON Schema of `RecipeDocument`; shared, so not to be changed."""
    return RecipeDocument.model_json_schema()


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe file, with descriptions, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "exporter recipe",
        **{key: value for key, value in document_schema().items() if key != "title"},
    }
