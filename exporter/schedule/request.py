"""What the user asks of a schedule, before any model is known."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from exporter.recipe_key import Count, Key, Positive, Range

ScheduleKind = Literal["constant", "decreasing", "increasing"]

FORMS: Mapping[str, tuple[str, ...]] = {
    "r": ("r", "kind", "align", "drop_share"),
    "r_per_layer": ("r_per_layer", "drop_per_layer"),
    "keep_per_layer": ("keep_per_layer",),
    "keep_rate": ("keep_rate", "at"),
    "slots_for": ("slots_for", "at"),
    "published": ("published",),
    "ratio": ("ratio",),
    "reduction_ratio": ("reduction_ratio",),
}
"""The forms of a request, each with its keys; `kind`, `align`, `drop_share` and `at` only add to a form that another
key chose."""


@dataclass(frozen=True, kw_only=True)
class ScheduleRequest:
    """One of eight forms: `r`, counts that leave a block or stay after it, a rate, slots, a published list, two ratios.

    Attributes:
        kind: how r is spread over the blocks.
        r: tokens that leave a block on average; 0 is the dense model.
        align: where possible, later token counts are multiples of this.
        drop_share: of the tokens that leave a block, the share that is dropped, in 0..1, for a method that takes such
            pairs of counts (diffrate).
        r_per_layer: tokens merged in each block, one entry per block, such as 16,14,12; for a method that only drops,
            the tokens that it drops.
        drop_per_layer: tokens dropped in each block, beside those of r_per_layer, such as 0,5,12.
        keep_per_layer: per block, tokens left after its merge (integers: 150,120), or the fraction that is kept
            (with a point, in (0, 1]: 0.9,0.9).
        keep_rate: fraction of the patches that is kept, in (0, 1], at each of the blocks of `at`; the method rounds.
        slots_for: percent of the calibration images, above 1, that have slots for all tokens that a method with
            another number for each image keeps (ats), such as 99; at each of the blocks of `at`. The images are those
            of calibration.
        at: blocks that keep_rate or slots_for is for, such as 3,6,9; by default those after a quarter, a half and three
            quarters.
        published: counts that a method's authors published, such as deit_s-2.9 of DiffRate (a model and its GMACs).
        ratio: share of the tokens of every site, in 0..1, that merge before its attention and are restored after it
            (tomesd).
        reduction_ratio: share of the dense model's multiply-accumulates to save, in 0..1, such as 0.3; the counts that
            come nearest are solved for, as even over the blocks as whole numbers allow.
    """

    kind: Annotated[ScheduleKind, Key(option="--schedule")] = "constant"
    r: Annotated[Count, Key(option="--r")] = 0
    align: Annotated[Positive | None, Key(option="--align")] = None
    drop_share: Annotated[Annotated[float, Range(least=0.0, most=1.0)] | None, Key(option="--drop-share")] = (
        None
    )
    r_per_layer: Annotated[tuple[Count, ...] | None, Key(option="--r-per-layer")] = None
    drop_per_layer: Annotated[tuple[Count, ...] | None, Key(option="--drop-per-layer")] = None
    keep_per_layer: Annotated[tuple[int, ...] | tuple[float, ...] | None, Key(option="--keep-per-layer")] = (
        None
    )
    keep_rate: Annotated[Annotated[float, Range(above=0.0, most=1.0)] | None, Key(option="--keep-rate")] = (
        None
    )
    slots_for: Annotated[Annotated[float, Range(above=1.0, most=100.0)] | None, Key(option="--slots-for")] = (
        field(default=None, metadata={"omit": True})  # from the text that names a sweep's points
    )
    at: Annotated[tuple[Count, ...] | None, Key(option="--at")] = None
    published: Annotated[str | None, Key(option="--published", metavar="NAME")] = None
    ratio: Annotated[Annotated[float, Range(least=0.0, most=1.0)] | None, Key(option="--ratio")] = None
    reduction_ratio: Annotated[
        Annotated[float, Range(least=0.0, most=1.0)] | None, Key(option="--reduction-ratio")
    ] = field(default=None, metadata={"omit": True})  # as slots_for

    @property
    def form(self) -> str:
        """Which of `FORMS` it has."""
        for form in ("ratio", "reduction_ratio", "published", "keep_rate", "slots_for", "keep_per_layer"):
            if getattr(self, form) is not None:
                return form
        return "r" if self.r_per_layer is None and self.drop_per_layer is None else "r_per_layer"

    @property
    def is_dense(self) -> bool:
        """Whether no token leaves, as far as this is known before the model is."""
        match self.form:
            case "r":
                return self.r == 0
            case "r_per_layer":
                return not any((*(self.r_per_layer or ()), *(self.drop_per_layer or ())))
            case "ratio":
                return self.ratio == 0.0
            case "reduction_ratio":
                return self.reduction_ratio == 0.0
            case _:
                return self.keep_rate == 1.0

    def describe(self) -> str:
        """The request as one short phrase, as it stands in the manifest and in summaries."""
        match self.form:
            case "r_per_layer":
                lists = {"r-per-layer": self.r_per_layer, "drop-per-layer": self.drop_per_layer}
                return " ".join(f"{name} {_listed(counts)}" for name, counts in lists.items() if counts)
            case "keep_per_layer":
                return f"keep-per-layer {_listed(self.keep_per_layer or ())}"
            case "published":
                return f"published {self.published}"
            case "ratio":
                return f"ratio {self.ratio:g}"
            case "reduction_ratio":
                return f"reduction-ratio {self.reduction_ratio:g}"
            case "keep_rate":
                return f"keep-rate {self.keep_rate:g}{self._places}"
            case "slots_for":
                return f"slots-for {self.slots_for:g}{self._places}"
            case _:
                aligned = f" aligned to {self.align}" if self.align else ""
                dropping = "" if self.drop_share is None else f" dropping {self.drop_share:g}"
                return f"{self.kind} r={self.r}{aligned}{dropping}"

    @property
    def _places(self) -> str:
        return f" at {_listed(self.at)}" if self.at else ""


def _listed(numbers: tuple[int, ...] | tuple[float, ...]) -> str:
    return ",".join(map(str, numbers))
