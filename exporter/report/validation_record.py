"""What `validation.json` says, as far as a report shows it.

Where it stands on the road: in, the file that `validate` leaves in a bundle; out, a `ValidationRecord` for the
sections on accuracy, retrieval and fidelity. Percentages are 0 to 100, differences are in points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.report.json_view import JsonView, read_json

VALIDATION_FILE = "validation.json"
RECALLS = ("r1", "r5", "r10")


@dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """Top-1 and top-5 in percent of n images."""

    top1: float
    top5: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """Points of top-1 gained against dense eager, their 95 % interval, and the p-value of no difference."""

    top1: float
    interval: tuple[float, float]
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class FidelityRow:
    """An engine against dense eager on n images, without labels.

    Attributes:
        n: images.
        top1_agreement: percent of images with the same best class; None without classes.
        kl: mean Kullback-Leibler divergence of the class distributions, in nats; None without classes.
        cosine_mean: mean cosine of the outputs.
        cosine_min: the smallest cosine of an image.
        neighbour_overlap: percent of nearest neighbours that are the same; None where it was not measured.
        neighbour_n: images among which the neighbours were looked for.
        not_finite: images for which an output holds an infinity or not-a-number; None in records of before 0.1.
    """

    n: int
    top1_agreement: float | None
    kl: float | None
    cosine_mean: float | None
    cosine_min: float | None
    neighbour_overlap: float | None
    neighbour_n: int | None
    not_finite: int | None


@dataclass(frozen=True, kw_only=True)
class RetrievalRow:
    """Recall in percent among the first 1, 5 and 10, both ways, over so many images and texts."""

    text_to_image: tuple[float, ...]
    image_to_text: tuple[float, ...]
    images: int
    texts: int


@dataclass(frozen=True, kw_only=True)
class BlockErrorRow:
    """How far the reduced model's tokens are from the dense ones after a block."""

    block: int
    tokens: int
    relative_error: float


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """A label of the user's, and the class that it was taken for; its name is None where nobody knew it."""

    label: str
    class_name: str | None
    index: int


@dataclass(frozen=True, kw_only=True)
class ValidationRecord:
    """Everything measured on images; a part that was not measured is empty or None.

    Attributes:
        data: the data set's name.
        n: images that were read.
        unreadable: (name, reason) of those that could not be.
        task: `classification` or `zero-shot`.
        accuracy: by contender: `dense`, and each target.
        difference: by target.
        fidelity: by target.
        retrieval: by contender.
        blocks: error by block.
        matched_by: the rule by which labels were matched with classes; None where they were not the user's.
        labels: with their classes.
        notes: what was left out of the images.
        warnings: why the labels are probably not the model's.
    """

    data: str
    n: int | None
    unreadable: tuple[tuple[str, str], ...]
    task: str | None
    accuracy: Mapping[str, AccuracyRow]
    difference: Mapping[str, DifferenceRow]
    fidelity: Mapping[str, FidelityRow]
    retrieval: Mapping[str, RetrievalRow]
    blocks: tuple[BlockErrorRow, ...]
    matched_by: str | None = None
    labels: tuple[LabelRow, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_validation(folder: Path) -> ValidationRecord | None:
    """The record in a bundle's folder, or None if nothing was validated.

    Raises:
        BundleError: the file is not what `validate` writes; the line names the key.
    """
    view = read_json(folder / VALIDATION_FILE)
    if view is None:
        return None
    data = view.view("data")
    return ValidationRecord(
        data=data.text("name"),
        n=data.integer_or_none("n"),
        unreadable=tuple((each.text("name"), each.text("reason")) for each in data.views("unreadable")),
        task=view.text("task") if view.has("task") else None,
        accuracy={name: _accuracy(row) for name, row in view.named_views("accuracy").items()},
        difference={name: _difference(row) for name, row in view.named_views("difference").items()},
        fidelity={name: _fidelity(row) for name, row in view.named_views("fidelity").items()},
        retrieval={name: _retrieval(row) for name, row in view.named_views("retrieval").items()},
        blocks=tuple(
            BlockErrorRow(
                block=row.integer("block"),
                tokens=row.integer("tokens"),
                relative_error=row.number("relative_error"),
            )
            for row in view.views("blocks")
        ),
        matched_by=view.text("labels_matched_by") if view.has("labels_matched_by") else None,
        labels=tuple(_label(row) for row in view.views("labels")),
        notes=view.texts("notes"),
        warnings=view.texts("warnings"),
    )


def _accuracy(row: JsonView) -> AccuracyRow:
    return AccuracyRow(top1=row.number("top1"), top5=row.number_or_none("top5"), n=row.integer("n"))


def _label(row: JsonView) -> LabelRow:
    class_name = row.text("class") if row.has("class") else None
    return LabelRow(label=row.text("label"), class_name=class_name, index=row.integer("index"))


def _difference(row: JsonView) -> DifferenceRow:
    return DifferenceRow(
        top1=row.number("top1"), interval=row.interval("interval"), p_value=row.number_or_none("p_value")
    )


def _fidelity(row: JsonView) -> FidelityRow:
    return FidelityRow(
        n=row.integer("n"),
        top1_agreement=row.number_or_none("top1_agreement"),
        kl=row.number_or_none("kl"),
        cosine_mean=row.number_or_none("cosine_mean"),
        cosine_min=row.number_or_none("cosine_min"),
        neighbour_overlap=row.number_or_none("neighbour_overlap"),
        neighbour_n=row.integer_or_none("neighbour_n"),
        not_finite=row.integer_or_none("not_finite"),
    )


def _retrieval(row: JsonView) -> RetrievalRow:
    ways = [row.view(way) for way in ("text_to_image", "image_to_text")]
    to_image, to_text = (tuple(way.number(key) for key in RECALLS) for way in ways)
    return RetrievalRow(
        text_to_image=to_image,
        image_to_text=to_text,
        images=row.integer("images"),
        texts=row.integer("texts"),
    )
