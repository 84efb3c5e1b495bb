"""`validation.json`: what was measured on images or texts. Percentages are 0 to 100, differences are in points."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from exporter.records.intervals import Interval
from exporter.records.json_text import OMIT
from exporter.records.reading import LENIENT

VALIDATION_FILE = "validation.json"


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Percent of n images whose label is the first, or among the first five.

    With fewer than five classes, `top5` is over all there are.
    """

    top1: float
    top5: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Top-1 against the dense eager model on the same images.

    Attributes:
        top1: in percent points; negative if the contender is worse.
        interval: 95 %, in points.
        p_value: exact McNemar: how likely a split of the images that only one of the two has right is at least this
            uneven, if neither is better; 1 if there is no such image; None if no test was made.
    """

    top1: float
    interval: Interval
    p_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class PatchFidelity:
    """Cosines between the features of a patch in the engine's output and in the dense model's.

    Attributes:
        mean: over patches and images; one that is not finite counts as -1.
        least: the worst patch of any image.
        grid: mean over images of every patch, in rows; one row where the rows are not known.
    """

    mean: float
    least: float
    grid: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """An engine against the dense eager model, over n images without labels.

    Attributes:
        n: images.
        not_finite: images for which either output holds an infinity or not-a-number. Each of them counts as a
            disagreement, as a cosine of -1 and as an image without neighbours in common. None in files of before 0.1.
        top1_agreement: percent of images with the same highest logit (the lower index on ties); None for embeddings.
        kl: mean KL(dense || engine) of the softmax of the logits, in nats; None for embeddings, and where an image is
            not finite.
        cosine_mean: mean over images of the cosine between the two outputs.
        cosine_min: the worst image's.
        neighbour_overlap: percent of each image's 10 nearest neighbours by cosine (all others, if there are fewer)
            that are the same in both sets of outputs, mean over images; None for a single image.
        neighbour_n: images among which neighbours were looked for.
    """

    n: int
    not_finite: int | None = None
    top1_agreement: float | None = None
    kl: float | None = None
    cosine_mean: float
    cosine_min: float
    neighbour_overlap: float | None = None
    neighbour_n: int | None = None


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Percent of queries with a right answer among the first 1, 5 and 10.

    Where there are no more than K answers to choose from, recall at K is 100 and means nothing.
    """

    r1: float
    r5: float
    r10: float

    @property
    def all(self) -> tuple[float, float, float]:
        """At 1, 5 and 10."""
        return self.r1, self.r5, self.r10


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Recalls in both directions, and the numbers of images and texts."""

    text_to_image: Recall
    image_to_text: Recall
    images: int
    texts: int


@dataclass(frozen=True, kw_only=True)
class RecallDifference:
    """Recall at 1 of a contender less that of the baseline, in points, with its 95 % interval.

    Queries are resampled one by one: where several texts belong to one image they are treated as independent, which
    makes the interval somewhat too narrow.
    """

    r1: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class RetrievalDifference:
    """Differences in both directions."""

    text_to_image: RecallDifference
    image_to_text: RecallDifference


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Spearman's rank correlation, -1 to 1, of the cosines of n pairs of texts with the scores that people gave."""

    spearman: float
    n: int


@dataclass(frozen=True, kw_only=True)
class SimilarityDifference:
    """Correlation of a contender less that of the baseline, with its 95 % interval."""

    spearman: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class BlockError:
    """How far the tokens of the reduced model are from the dense ones after a block, relative to the dense norm."""

    block: int
    tokens: int
    relative_error: float


@dataclass(frozen=True, kw_only=True)
class SlotNeed:
    """How many tokens images need of a block, of a method that keeps another number of each of them.

    Attributes:
        block: index.
        slots: tokens that the schedule leaves.
        n: images.
        overflow: percent of them that need more, so that tokens are lost that the method would keep.
        most: tokens that an image needs at most.
        nearly_all: tokens that are enough for 99.9 % of the images.
    """

    block: int
    slots: int
    n: int
    overflow: float
    most: int
    nearly_all: int


@dataclass(frozen=True, kw_only=True)
class ClassLabel:
    """A label, the index of its class, and the name of that class where it is known."""

    label: str
    index: int
    name: str | None = field(default=None, metadata={"alias": "class"})


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An image that was left out: its name in the set, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What was measured on: the set's name, whether it is images or texts, how many could be read, and the others."""

    name: str
    kind: Literal["images", "texts"] = field(default="images", metadata=OMIT)
    n: int | None = None
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ValidationRecord:
    """Everything measured on images or texts; a part that was not measured is empty or None.

    Attributes:
        data: the images or texts.
        task: `classification` or `zero-shot`, where there are classes.
        accuracy: by contender, `dense` and each target, on labelled images.
        difference: by target.
        fidelity: by target, against the dense model.
        patches: by target, against the dense model, where the outputs are features of every patch.
        retrieval: by contender, on pairs.
        retrieval_difference: by target.
        similarity: by contender, on pairs of texts with scores.
        similarity_difference: by target.
        blocks: error of the tokens after every merging block.
        slots: for a method that keeps another number of tokens of each image, of every block that it reduces.
        labels_matched_by: the rule by which labels were matched with classes; None where they were not the user's.
        labels: with their classes.
        notes: what was left out of the images, one sentence each.
        warnings: why the labels are probably not the model's.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = LENIENT

    data: DataRecord
    task: str | None = None
    accuracy: Mapping[str, Accuracy] = field(default_factory=dict, metadata=OMIT)
    difference: Mapping[str, Difference] = field(default_factory=dict, metadata=OMIT)
    fidelity: Mapping[str, Fidelity] = field(default_factory=dict)
    patches: Mapping[str, PatchFidelity] = field(default_factory=dict, metadata=OMIT)
    retrieval: Mapping[str, Retrieval] = field(default_factory=dict, metadata=OMIT)
    retrieval_difference: Mapping[str, RetrievalDifference] = field(default_factory=dict, metadata=OMIT)
    similarity: Mapping[str, Similarity] = field(default_factory=dict, metadata=OMIT)
    similarity_difference: Mapping[str, SimilarityDifference] = field(default_factory=dict, metadata=OMIT)
    blocks: tuple[BlockError, ...] = ()
    slots: tuple[SlotNeed, ...] = field(default=(), metadata=OMIT)
    labels_matched_by: str | None = field(default=None, metadata=OMIT)
    labels: tuple[ClassLabel, ...] = field(default=(), metadata=OMIT)
    notes: tuple[str, ...] = field(default=(), metadata=OMIT)
    warnings: tuple[str, ...] = field(default=(), metadata=OMIT)
