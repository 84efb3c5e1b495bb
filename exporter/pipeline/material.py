"""What a model is measured on: images and texts that the user named, or those that ship with the model.

In: a recipe's `Validation` and a loaded model. Out: a `Material`, or None where there is nothing to measure on.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from exporter.errors import UsageError, quoted
from exporter.models import ClassNames, LoadedModel, ModelRequest, ShippedData, shipped_data
from exporter.recipe import Validation
from exporter.validation import (
    ImagePairs,
    ImageSet,
    KnownClasses,
    TextSet,
    image_arrays,
    image_pairs,
    open_images,
    read_lines,
    read_templates,
    read_texts,
)

DEFAULT_TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True, kw_only=True)
class Material:
    """Images, and texts for a two-tower model; of a text encoder, texts alone.

    Attributes:
        images: for accuracy and fidelity.
        class_names: that prompts are made of, for zero-shot classification; empty where there is none.
        templates: prompts with one `{}` for the class name.
        pairs: for retrieval.
        texts_alone: for accuracy and fidelity of a text encoder.
        outputs: folder of outputs that are known already, such as the dense model's; None where there are none.
    """

    images: ImageSet | None = None
    class_names: tuple[str, ...] = ()
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    pairs: ImagePairs | None = None
    texts_alone: TextSet | None = None
    outputs: Path | None = None

    @property
    def name(self) -> str | None:
        """Of the images or texts that are judged without pairs."""
        data = self.texts_alone or self.images
        return None if data is None else data.name

    @property
    def sets(self) -> dict[str, ImageSet]:
        """The images that there are, by what they are for: `data` or `pairs`."""
        found = {"data": self.images, "pairs": self.pairs.images if self.pairs is not None else None}
        return {use: images for use, images in found.items() if images is not None}

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
    if request.outputs == "reduced":
        if asked.data or asked.pairs:
            raise UsageError(
                "data: with --outputs reduced an engine gives fewer tokens than the dense model, and there is nothing "
                "to compare them with; leave --data out"
            )
        _check_gates(asked, None, model)
        return None
    if not (asked.data or asked.pairs):
        shipped = shipped_data(request) if request.tower == "image" else None
        found = _of_shipped(shipped, model) if shipped is not None else None
    elif model.takes_texts:
        found = _of_texts(asked, model, outputs)
    else:
        found = _of_files(asked, model, outputs)
    _check_gates(asked, found, model)
    return found


def _of_files(asked: Validation, model: LoadedModel, outputs: int) -> Material:
    class_names = read_lines(Path(asked.classes), "class names") if asked.classes else ()
    known, notes = _known_classes(asked, model, class_names, outputs)
    images = None
    if asked.data:
        images = open_images(Path(asked.data), None if asked.unlabelled else known)
        images = replace(images, notes=(*images.notes, *(notes if images.match is not None else ())))
    return Material(
        images=images,
        class_names=class_names if _gives(model, "embedding") else (),
        templates=read_templates(Path(asked.templates)) if asked.templates else DEFAULT_TEMPLATES,
        pairs=image_pairs(Path(asked.pairs)) if asked.pairs else None,
    )


def _of_texts(asked: Validation, model: LoadedModel, outputs: int) -> Material:
    class_names = read_lines(Path(asked.classes), "class names") if asked.classes else ()
    known, notes = _known_classes(asked, model, class_names, outputs)
    assert asked.data is not None
    texts = read_texts(Path(asked.data), known, labelled=not asked.unlabelled)
    return Material(
        texts_alone=replace(texts, notes=(*texts.notes, *(notes if texts.match is not None else ())))
    )


def _known_classes(
    asked: Validation, model: LoadedModel, class_names: tuple[str, ...], outputs: int
) -> tuple[KnownClasses | None, tuple[str, ...]]:
    """What labels are matched with: the names of `--classes`, else the model's own; None for a model without classes.

    With it, what the user should know about the names.
    """
    given = tuple((name,) for name in class_names)
    if not _gives(model, "logits"):
        known = KnownClasses(count=len(given), names=given, from_file=True, in_order=asked.labels_in_order)
        return (known if given else None), ()
    if given and len(given) != outputs:
        raise UsageError(
            f"classes: expected {outputs} lines in {quoted(asked.classes)}, one for each class of the model in its "
            f"order, got {len(given)}"
        )
    own, notes = _own_names(model, outputs)
    known = KnownClasses(
        count=outputs, names=given or own, from_file=bool(given), in_order=asked.labels_in_order
    )
    return known, (*notes, *_contradictions(own, class_names))


def _own_names(model: LoadedModel, outputs: int) -> tuple[ClassNames | None, tuple[str, ...]]:
    """The model's own class names, if there is one for each output; else why they are not used."""
    own = model.class_names
    if own is None or len(own) == outputs:
        return own, ()
    return None, (f"the model names {len(own)} classes and has {outputs} outputs: its names are not used",)


def _contradictions(own: ClassNames | None, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Where a file gives a class the name that the model has for another one."""
    if own is None or not class_names:
        return ()
    called = KnownClasses(count=len(own), names=own).called(class_names)
    for index, name in enumerate(class_names):
        if called[name] and index not in called[name]:
            other = called[name][0]
            return (
                f"--classes has {quoted(name)} as class {index}, the model as class {other}: --classes counts",
            )
    return ()


def _of_shipped(shipped: ShippedData, model: LoadedModel) -> Material:
    images = image_arrays(shipped.images_BHWC, shipped.labels, name=f"the held-out images of {model.name}")
    if shipped.captions is None or not _gives(model, "embedding"):
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
    for key in ("pairs", "templates"):
        if getattr(asked, key) is not None and not _gives(model, "embedding"):
            raise UsageError(f"{key}: expected a two-tower model such as a CLIP, got {_what_it_gives(model)}")
    if asked.classes is not None and not (_gives(model, "embedding") or _gives(model, "logits")):
        raise UsageError(
            f"classes: expected a classifier, or a two-tower model such as a CLIP, got {_what_it_gives(model)}"
        )
    if asked.labels_in_order and (asked.data is None or asked.unlabelled):
        raise UsageError("labels_in_order: expected labelled images; give --data DIR without --unlabelled")
    if asked.labels_in_order and not (_gives(model, "logits") or asked.classes is not None):
        raise UsageError(f"labels_in_order: expected a classifier, got {_what_it_gives(model)}")
    if asked.unlabelled and asked.data is None:
        raise UsageError("unlabelled: expected images that it is about; give --data DIR")
    if asked.templates is not None and asked.classes is None:
        raise UsageError("templates: expected class names to put into them as well; give --classes FILE")
    if asked.classes is not None and asked.data is None:
        raise UsageError("classes: expected labelled images of these classes as well; give --data DIR")
    if asked.data and model.takes_texts and model.tokenizer is None:
        raise UsageError(f"data: {model.name} takes texts and has no tokenizer to read them with")
    if asked.pairs and model.takes_texts:
        raise UsageError(f"pairs: {model.name} {model.why_no_photos}")
    if (asked.data or asked.pairs) and not model.takes_texts and model.preprocess is None:
        raise UsageError(f"data: {model.name} {model.why_no_photos}")


def _what_it_gives(model: LoadedModel) -> str:
    return f"{model.name}, which gives {model.output_names[0]}"


def _check_gates(asked: Validation, found: Material | None, model: LoadedModel) -> None:
    data = None if found is None else found.texts_alone or found.images
    classified = found is not None and data is not None and (_gives(model, "logits") or found.class_names)
    images = "a folder with --data DIR, and for a two-tower model class names with --classes FILE"
    counted, wanted = ("texts", "a CSV file with --data FILE") if model.takes_texts else ("images", images)
    if asked.accuracy.max_drop is not None and not (classified and data and data.labels):
        raise UsageError(f"validate.accuracy.max_drop: expected labelled {counted}; give {wanted}")
    if asked.agreement.min is not None and not classified:
        raise UsageError(f"validate.agreement.min: expected {counted} to classify; give {wanted}")
    if asked.overflow.max is not None and found is None:
        raise UsageError("validate.overflow.max: expected images to count on; give a folder with --data DIR")
