"""Cut inputs into the batches that an engine takes, and put its results together again."""

from collections.abc import Mapping, Sequence

import numpy as np

from exporter.signature import Array, TensorSpec


def split(inputs: Mapping[str, Array], smallest: int, largest: int) -> list[dict[str, Array]]:
    """Batches of at most `largest` rows, each C-contiguous; a short one is padded to `smallest` with its last row."""
    count = len(next(iter(inputs.values())))
    return [
        {name: padded(array[start : start + largest], smallest) for name, array in inputs.items()}
        for start in range(0, count, largest)
    ]


def padded(rows: Array, least: int) -> Array:
    """At least `least` rows, C-contiguous: those given, and the last one again as often as needed."""
    missing = least - len(rows)
    full = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing > 0 else rows
    return np.ascontiguousarray(full)


def join(results: Sequence[Sequence[Array]], outputs: Sequence[TensorSpec], count: int) -> dict[str, Array]:
    """The first `count` rows of every batch's results, by name; results beyond the outputs are left out."""
    columns = list(zip(*results, strict=True))
    return {spec.name: np.concatenate(columns[place])[:count] for place, spec in enumerate(outputs)}
