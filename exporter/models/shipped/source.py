"""The models that ship in the package, with trained weights and no download."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from exporter.errors import UsageError
from exporter.models.checkpoint.read import read_checkpoint
from exporter.models.loaded import ClassNames, ExampleInput, LoadedModel, OutputName
from exporter.models.preprocessing.preprocess import Preprocess
from exporter.models.request import (
    ResolvedRequest,
    Tower,
    check_image_tower,
    check_no_options,
    safe_name,
    size_text,
)
from exporter.models.shipped.clip_digits import CLIP_DIGITS_WEIGHTS, ClipDigits
from exporter.models.shipped.digit_texts import CONTEXT, DIGIT_WORDS, VOCABULARY, tokenize_words
from exporter.models.shipped.digits import DIGITS_PREPROCESS, VIT_DIGITS_WEIGHTS, build_vit_digits
from exporter.models.shipped.fashion import (
    FASHION_CLASSES,
    FASHION_PREPROCESS,
    VIT_FASHION_WEIGHTS,
    build_vit_fashion,
)
from exporter.models.weights import build_on_meta, build_random, fill, sha256_of


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A model of the package.

    Attributes:
        build: Makes it, with all its towers.
        weights: Of all its towers.
        preprocess: Of its images.
        output_name: What each tower gives.
        towers: Those that it has; a model of several keeps each as the submodule of that name.
        class_names: Of a classifier.
    """

    build: Callable[[], nn.Module]
    weights: Path
    preprocess: Preprocess
    output_name: OutputName
    towers: tuple[Tower, ...] = ("image",)
    class_names: ClassNames | None = None


EMBEDDED: dict[str, Embedded] = {
    "vit_digits": Embedded(
        build=build_vit_digits,
        weights=VIT_DIGITS_WEIGHTS,
        preprocess=DIGITS_PREPROCESS,
        output_name="logits",
        class_names=tuple((word, str(digit)) for digit, word in enumerate(DIGIT_WORDS)),
    ),
    "vit_fashion": Embedded(
        build=build_vit_fashion,
        weights=VIT_FASHION_WEIGHTS,
        preprocess=FASHION_PREPROCESS,
        output_name="logits",
        class_names=tuple((name,) for name in FASHION_CLASSES),
    ),
    "clip_digits": Embedded(
        build=ClipDigits,
        weights=CLIP_DIGITS_WEIGHTS,
        preprocess=DIGITS_PREPROCESS,
        output_name="embedding",
        towers=("image", "text"),
    ),
}


def load_embedded(asked: ResolvedRequest) -> LoadedModel:
    """Load a model of the package, by default with its own weights.

    A weights file holds the state dict of the whole model, all towers.

    Raises:
        UsageError: Another image size, an option, or a tower that it does not have.
        WeightsError: A weights file that does not fit.
    """
    check_no_options(asked)
    model = EMBEDDED[asked.id]
    is_text = asked.request.tower == "text"
    if asked.request.tower not in model.towers:
        check_image_tower(asked)
    if asked.image_size not in (None, model.preprocess.image_size):
        raise UsageError(
            f"{asked.spelling} takes {size_text(model.preprocess.image_size)} pixel images only, got --image-size "
            f"{size_text(asked.image_size)}"
        )
    module, notes = _build(asked, model)
    kind = asked.weights_kind
    return LoadedModel(
        module=module,
        source=asked.source,
        id=asked.id,
        name=safe_name(asked.id + ("-text" if is_text else "")),
        output_names=(model.output_name,),
        inputs=_text_inputs() if is_text else _image_inputs(model),
        preprocess=None if is_text else model.preprocess,
        weights_kind="embedded" if kind == "pretrained" else kind,
        weights_sha256=sha256_of(module.state_dict()),
        class_names=model.class_names,
        notes=notes,
        tokenize=tokenize_words if is_text else None,
    )


def _build(asked: ResolvedRequest, model: Embedded) -> tuple[nn.Module, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if asked.weights_kind == "random":
        whole = build_random(model.build, asked.request.seed)
    else:
        path = model.weights if asked.weights_kind == "pretrained" else asked.weights_path
        checkpoint = read_checkpoint(path).fitted_to(build_on_meta(model.build).state_dict())
        whole, notes = fill(model.build, checkpoint.state, path), checkpoint.notes
    return (whole if len(model.towers) == 1 else whole.get_submodule(asked.request.tower)), notes


def _text_inputs() -> dict[str, ExampleInput]:
    return {"input_ids": ExampleInput(shape=(CONTEXT,), dtype=torch.int64, vocabulary=len(VOCABULARY))}


def _image_inputs(model: Embedded) -> dict[str, ExampleInput]:
    return {"images": ExampleInput(shape=(3, *model.preprocess.image_size), dtype=torch.float32)}
