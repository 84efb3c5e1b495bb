"""What a ladder has to reach, and by what its answers are judged."""

from dataclasses import dataclass, replace
from typing import Self

from exporter.errors import UsageError
from exporter.graph.nodes import operands, output_node, shape_of
from exporter.pipeline.plan import Planned
from exporter.records import Router
from exporter.reduction import method

LEAST_COSINE = 0.99
"""Of a vector to the dense model's, where none is asked for. Over 357 photos, the mean of a trained ViT-S/14 is 0.9989
with r=8, and 0.9943 with r=16."""


@dataclass(frozen=True, kw_only=True)
class LadderGoal:
    """What the threshold of a ladder has to reach: an agreement, or in its place a saving.

    Attributes:
        agreement: share of images, below 1, on which the answers have to be the dense model's.
        saving: share of the dense multiply-accumulates that is saved in the mean.
        cosine: least one of a vector to the dense model's, to count as its answer; None of a classifier.
    """

    agreement: float | None = None
    saving: float | None = None
    cosine: float | None = None

    @property
    def router(self) -> Router:
        """Vectors say nothing of how sure they are."""
        return "confidence" if self.cosine is None else "redundancy"

    def of(self, planned: Planned) -> Self:
        """The goal for a model: with a limit of the cosine exactly where it gives vectors.

        Raises:
            UsageError: what it gives, or how its tokens merge, tells nothing to choose engines by.
        """
        model, cosine = planned.model, self.cosine
        if model.output_names[0] == "logits":
            if cosine is not None:
                raise UsageError(
                    f"cosine: {model.name} is a classifier, whose classes are compared; leave it out"
                )
            return self
        output = operands(output_node(planned.program.graph_module.graph))[0]
        if len(shape_of(output)) != 2:
            raise UsageError(
                f"ladder: expected a model that gives logits or one vector per image, got {model.name}, which gives "
                f"{model.output_names[0]}"
            )
        chosen = method(planned.recipe.method)
        if not chosen.decides or planned.schedule.around:
            raise UsageError(
                f"method {chosen.name}: how alike the tokens are that merge, by which a ladder of vectors chooses "
                "engines, is not known of it; choose another one, such as tome"
            )
        cosine = LEAST_COSINE if cosine is None else cosine
        if not 0 < cosine < 1:
            raise UsageError(
                f"cosine: expected a number between 0 and 1, such as {LEAST_COSINE}, got {cosine:g}"
            )
        return replace(self, cosine=cosine)
