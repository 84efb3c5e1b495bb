"""What the user asks of a schedule, before any model is known."""

from dataclasses import dataclass
from typing import Annotated, Literal

from exporter.recipe_key import Count, Key, Positive

ScheduleKind = Literal["constant", "decreasing", "increasing"]


@dataclass(frozen=True, kw_only=True)
class ScheduleRequest:
    """Exactly one of three forms: a `kind` with `r`, explicit merges per block, or explicit survivors per block.

    Attributes:
        kind: how r is spread over the blocks.
        r: tokens merged per block on average; 0 is the dense model.
        align: where possible, later token counts are multiples of this.
        r_per_layer: tokens merged in each block, one entry per block, such as 16,14,12.
        keep_per_layer: per block, tokens left after its merge (integers: 150,120), or the fraction that is kept
            (with a point, in (0, 1]: 0.9,0.9).
    """

    kind: Annotated[ScheduleKind, Key(option="--schedule")] = "constant"
    r: Annotated[Count, Key(option="--r")] = 0
    align: Annotated[Positive | None, Key(option="--align")] = None
    r_per_layer: Annotated[tuple[Count, ...] | None, Key(option="--r-per-layer")] = None
    keep_per_layer: Annotated[tuple[int, ...] | tuple[float, ...] | None, Key(option="--keep-per-layer")] = (
        None
    )

    def describe(self) -> str:
        """The request as one short phrase, as it stands in the manifest and in summaries."""
        if self.r_per_layer is not None:
            return "r-per-layer " + ",".join(map(str, self.r_per_layer))
        if self.keep_per_layer is not None:
            return "keep-per-layer " + ",".join(map(str, self.keep_per_layer))
        aligned = f" aligned to {self.align}" if self.align else ""
        return f"{self.kind} r={self.r}{aligned}"
