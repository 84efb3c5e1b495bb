"""Run each text on the shortest of several engines that takes all of its tokens.

In: runners of engines for texts of several lengths, and inputs for the longest. Out: outputs in the same order.
"""

from collections.abc import Callable, Sequence

import numpy as np

from exporter.signature import MASK, Array, Inputs
from exporter.targets.runner import Runner


def by_length(runners: Sequence[Runner]) -> Callable[[Inputs], dict[str, Array]]:
    """What runs texts on several engines as on one: every engine is called once, with all texts that are its.

    Args:
        runners: shortest length first; the same inputs and outputs but for the number of tokens. One alone is itself.

    Returns:
        A function of inputs (n, N) by name, with N tokens of the longest engine and padding last; like a runner, it
        returns outputs by name, and raises what a runner raises.
    """
    if len(runners) == 1:
        return runners[0]

    def run(inputs: Inputs) -> dict[str, Array]:
        given = runners[-1].signature.named(inputs)
        lengths = [int(each.signature.inputs[0].shape[1]) for each in runners]
        place_n = np.searchsorted(lengths, _tokens(given[MASK]))
        rows = [np.flatnonzero(place_n == place) for place in range(len(runners))]
        results = [
            runner({name: array[own, :length] for name, array in given.items()})
            for runner, length, own in zip(runners, lengths, rows, strict=True)
            if len(own)
        ]
        order = np.argsort(np.concatenate(rows))
        return {name: np.concatenate([each[name] for each in results])[order] for name in results[0]}

    return run


def _tokens(mask_nN: Array) -> Array:
    """Slots up to the last token of each text, (n,)."""
    length = mask_nN.shape[1]
    return np.where(mask_nN.any(axis=1), length - np.argmax(mask_nN[:, ::-1] != 0, axis=1), 0)
