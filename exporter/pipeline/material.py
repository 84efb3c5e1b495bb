"""What a model is measured on: images and texts that the user named, or those that ship with the model.

In: a recipe's `Validation` and a loaded model. Out: a `Material`, or None where there is nothing to measure on.
"""

from dataclasses import dataclass
from pathlib import Path

from exporter.errors import UsageError
from exporter.models import LoadedModel, ModelRequest, ShippedData, shipped_data
from exporter.recipe import Validation
from exporter.validation import (
    ImagePairs,
    ImageSet,
    image_arrays,
    image_pairs,
    open_images,
    read_lines,
    read_templates,
)

DEFAULT_TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True, kw_only=True)
class Material:
    """Images, and texts for a two-tower model.

    Attributes:
        images: for accuracy and fidelity.
        class_names: of the labels, for zero-shot classification; empty where there is none.
        templates: prompts with one `{}` for the class name.
        pairs: for retrieval.
    """

    images: ImageSet | None
    class_names: tuple[str, ...] = ()
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    pairs: ImagePairs | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that will be embedded: prompts for every class name, and captions."""
        prompts = [template.format(name) for name in self.class_names for template in self.templates]
        return (*prompts, *(self.pairs.texts if self.pairs is not None else ()))

    @property
    def needs_texts(self) -> bool:
        """Whether texts have to be embedded."""
        return bool(self.class_names) or self.pairs is not None


def material(asked: Validation, request: ModelRequest, model: LoadedModel, outputs: int) -> Material | None:
    """Open what there is to measure on.

    Args:
        asked: of the recipe.
        request: of the model.
        model: loaded.
        outputs: length of the model's first output: its classes, if it has logits.

    Raises:
        UsageError: something is asked that this model, or this data, cannot give; or a file is not what it should be.
    """
    _check(asked, model)
    if not (asked.data or asked.pairs):
        shipped = shipped_data(request) if request.tower == "image" else None
        found = _of_shipped(shipped, model) if shipped is not None else None
    else:
        found = _of_files(asked, model, outputs)
    _check_gates(asked, found, model)
    return found


def _of_files(asked: Validation, model: LoadedModel, outputs: int) -> Material:
    class_names = read_lines(Path(asked.classes), "class names") if asked.classes else ()
    classes = len(class_names) if class_names else outputs if _gives(model, "logits") else None
    images = None
    if asked.data:
        images = open_images(
            Path(asked.data),
            classes=classes,
            class_names=class_names,
            unlabelled=asked.unlabelled or classes is None,
        )
    return Material(
        images=images,
        class_names=class_names,
        templates=read_templates(Path(asked.templates)) if asked.templates else DEFAULT_TEMPLATES,
        pairs=image_pairs(Path(asked.pairs)) if asked.pairs else None,
    )


def _of_shipped(shipped: ShippedData, model: LoadedModel) -> Material:
    images = image_arrays(shipped.images_BHWC, shipped.labels, name=f"the held-out images of {model.name}")
    if shipped.captions is None:
        return Material(images=images)
    texts = tuple(dict.fromkeys(shipped.captions))
    pairs = tuple((image, texts.index(caption)) for image, caption in enumerate(shipped.captions))
    return Material(
        images=images,
        class_names=shipped.class_names or (),
        templates=shipped.templates or DEFAULT_TEMPLATES,
        pairs=ImagePairs(images=images, texts=texts, pairs=pairs),
    )


def _gives(model: LoadedModel, output: str) -> bool:
    return model.output_names[0] == output


def _check(asked: Validation, model: LoadedModel) -> None:
    for key in ("pairs", "classes", "templates"):
        if getattr(asked, key) is not None and not _gives(model, "embedding"):
            raise UsageError(
                f"{key}: expected a two-tower model such as a CLIP, got {model.name}, which gives "
                f"{model.output_names[0]}"
            )
    if asked.unlabelled and asked.data is None:
        raise UsageError("unlabelled: expected images that it is about; give --data DIR")
    if asked.templates is not None and asked.classes is None:
        raise UsageError("templates: expected class names to put into them as well; give --classes FILE")
    if asked.classes is not None and asked.data is None:
        raise UsageError("classes: expected labelled images of these classes as well; give --data DIR")
    if (asked.data or asked.pairs) and model.preprocess is None:
        raise UsageError(f"data: {model.name} {model.why_no_photos}")


def _check_gates(asked: Validation, found: Material | None, model: LoadedModel) -> None:
    classified = (
        found is not None and found.images is not None and (_gives(model, "logits") or found.class_names)
    )
    if asked.accuracy.max_drop is not None and not (
        classified and found and found.images and found.images.labels
    ):
        raise UsageError(
            "validate.accuracy.max_drop: expected labelled images; give a folder with --data DIR, and for a two-tower "
            "model class names with --classes FILE"
        )
    if asked.agreement.min is not None and not classified:
        raise UsageError(
            "validate.agreement.min: expected images to classify; give a folder with --data DIR, and for a two-tower "
            "model class names with --classes FILE"
        )
