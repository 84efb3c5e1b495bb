"""Run images on the cheapest engine of a ladder, and on the next one where its answer is not kept.

In: a call's images. Out: the outputs of the engine whose answer was kept, image by image. Those that need the next
engine are collected into its batches, so that calls with many images waste little. No torch.

Shapes: n images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.bundle import Bundle
from exporter.ladder.router import values
from exporter.records import Router
from exporter.signature import Array, Inputs
from exporter.targets import Runner

_BATCHES = 16
_MOST_IMAGES = 256
"""Of a call: many, since the last batch of each engine is seldom full, but memory has an end."""


def images_at_once(batch: int | str) -> int:
    """How many images a call of a ladder should have, by the batch of its engines, which may be free."""
    if isinstance(batch, str):
        return _MOST_IMAGES // 2
    return batch * max(1, min(_BATCHES, _MOST_IMAGES // batch))


@dataclass(frozen=True, kw_only=True)
class Routed:
    """Outputs of images, and whose they are.

    Attributes:
        outputs: by name, (n, ...).
        rung_n: place of the engine that gave each, int64 (n,).
    """

    outputs: Mapping[str, Array]
    rung_n: Array


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Engines of a ladder, called as one.

    Attributes:
        runners: cheapest first, with equal inputs; the outputs are the last one's, which all have.
        threshold: least value at which an answer is kept.
        router: what that value is.
    """

    runners: Sequence[Runner]
    threshold: float
    router: Router = "confidence"

    @classmethod
    def of(cls, bundle: Bundle) -> "Cascade | None":
        """The engines of a ladder, not loaded yet; None of any other bundle.

        Raises:
            BundleError: what it says of its engines does not fit them.
        """
        record = bundle.ladder()
        if record is None:
            return None
        runners = tuple(each.runner(record.target) for each in bundle.rungs())
        return cls(runners=runners, threshold=record.threshold, router=record.router)

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Outputs by name; see `routed`."""
        return self.routed(inputs).outputs

    def routed(self, inputs: Inputs) -> Routed:
        """Outputs of images, and whose they are.

        Args:
            inputs: (n, ...) by name, or of the only one.

        Raises:
            ExportError: what a runner raises.
        """
        given = self.runners[-1].signature.named(inputs)
        count = len(next(iter(given.values())))
        left, rung_n, outputs = np.arange(count), np.zeros(count, np.int64), dict[str, Array]()
        for place, runner in enumerate(self.runners):
            found = runner(given if not place else {name: array[left] for name, array in given.items()})
            if place + 1 == len(self.runners):
                kept = np.full(len(left), True)
            else:
                kept = values(self.router, found) >= self.threshold
            for name in self.runners[-1].signature.output_names:
                array = found[name]
                whole = outputs.setdefault(name, np.empty((count, *array.shape[1:]), array.dtype))
                whole[left[kept]] = array[kept]
            rung_n[left[kept]] = place
            left = left[~kept]
            if not len(left):
                break
        return Routed(outputs=outputs, rung_n=rung_n)
