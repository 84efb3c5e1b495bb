"""What a reduction method is: the one thing that a new file in `methods/` has to define."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from exporter.errors import UsageError, nearest
from exporter.reduction.merge import Match


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to choose which tokens merge.

    Attributes:
        name: as users write it.
        reference: paper and equation.
        match: `match(metric_BNC, r=..., prefix=..., depth=..., **options) -> Match`, where metric_BNC holds unit
            vectors, prefix counts the protected tokens in front, and depth is block index / number of blocks.
        regret: `regret(metric_BNC, match, r=..., prefix=..., depth=..., **options) -> (B,)`: by how much, in units
            of similarity, a given match misses the method's definition; 0 for its own. It tells a near-tie that
            rounding flipped from a wrong match.
        defaults: the options that users may set, with their default values.
    """

    name: str
    reference: str
    match: Callable[..., Match]
    regret: Callable[..., Tensor]
    defaults: Mapping[str, float] = field(default_factory=dict)

    def options(self, given: Mapping[str, float]) -> dict[str, float]:
        """The defaults with the user's values over them.

        Raises:
            UsageError: an option that the method does not have.
        """
        for name in given:
            if name not in self.defaults:
                known = ", ".join(self.defaults) or "none"
                raise UsageError(
                    f"method {self.name}: unknown option {name}, expected one of: {known}."
                    f"{nearest(name, self.defaults)}"
                )
        return {**self.defaults, **given}
