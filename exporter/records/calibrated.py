"""What was chosen on images without labels before a model was compiled, and what it was chosen from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter.records.json_text import OMIT
from exporter.records.validation import SlotNeed


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A value of an option, and what the reduced model loses with it.

    Attributes:
        value: that was tried.
        loss: in the measure of the search; None where an output is not finite.
        top1_agreement: percent of images with the same highest logit as the dense model; None for embeddings.
    """

    value: bool | int | float | str
    loss: float | None
    top1_agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class OptionSearch:
    """A search for the value of an option.

    Attributes:
        chosen: the value of the smallest loss, the first one on ties.
        measure: of the loss, mean over images: `kl`, KL(dense || reduced) of the softmax of the logits in nats, or
            `cosine`, 1 less the cosine between the outputs.
        trials: in the order in which values were tried.
    """

    chosen: bool | int | float | str
    measure: Literal["kl", "cosine"]
    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Everything that was chosen on images without labels.

    Attributes:
        images: name of the set.
        n: how many of its images.
        options: by option of the method that was searched for.
        slots_for: percent of the images that were to have slots for all tokens that they need.
        slots: what they need of every block whose slots were chosen by it, and the slots.
    """

    images: str
    n: int
    options: Mapping[str, OptionSearch] = field(default_factory=dict, metadata=OMIT)
    slots_for: float | None = field(default=None, metadata=OMIT)
    slots: tuple[SlotNeed, ...] = field(default=(), metadata=OMIT)
