"""The range of batches that an engine is built for."""

from dataclasses import dataclass
from typing import ClassVar

from exporter.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BatchRange:
    """What the options of both kinds of TensorRT say of the batch.

    Attributes:
        min_batch: smallest batch of a program with a free batch axis; None for a static batch. The three go together.
        opt_batch: the batch that kernels are chosen for.
        max_batch: largest batch.
    """

    target: ClassVar[str]
    """In front of an option's name."""

    min_batch: int | None = None
    opt_batch: int | None = None
    max_batch: int | None = None

    def __post_init__(self) -> None:
        """Refuse a range that is none.

        Raises:
            UsageError: one of three is missing, or they do not ascend.
        """
        given = {"min_batch": self.min_batch, "opt_batch": self.opt_batch, "max_batch": self.max_batch}
        missing = [name for name, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            raise UsageError(
                f"{self.target}.{missing[0]}: expected all of min_batch, opt_batch and max_batch, or none; it is "
                "missing"
            )
        profile = self.profile
        if profile is not None and not 1 <= profile[0] <= profile[1] <= profile[2]:
            raise UsageError(f"{self.all_three}: expected 1 <= min <= opt <= max, got {profile}")

    @property
    def all_three(self) -> str:
        """The names, in a message."""
        return f"{self.target}.min_batch, opt_batch, max_batch"

    @property
    def profile(self) -> tuple[int, int, int] | None:
        """Smallest, best and largest batch, or None for a static batch."""
        smallest, best, largest = self.min_batch, self.opt_batch, self.max_batch
        if smallest is None or best is None or largest is None:
            return None
        return smallest, best, largest

    def check_batch(self, batch: int | str) -> None:
        """Refuse a range that is not the program's.

        Args:
            batch: of the program; a word for a free one.

        Raises:
            UsageError: a fixed batch and a range, or a free one without.
        """
        asked = self.profile
        if isinstance(batch, int) and asked is not None and set(asked) != {batch}:
            raise UsageError(
                f"{self.all_three}: {asked} asks for a range, but the program is fixed to batch "
                f"{batch}; set dynamic_batch: true in the recipe, or leave the three out"
            )
        if not isinstance(batch, int) and asked is None:
            raise UsageError(
                f"{self.target}.max_batch: a program with a free batch needs min_batch, opt_batch and max_batch, got "
                "none of them"
            )
