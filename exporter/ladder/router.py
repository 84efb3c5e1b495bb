"""What decides whether an engine's answer is kept: one number per image, whichever router a ladder has.

In: what an engine gives. Out: a value per image that is compared with the ladder's threshold. No torch.

Shapes: n images, C classes or numbers of a vector.
"""

from collections.abc import Mapping

import numpy as np

from exporter.records import REDUNDANCY, Router
from exporter.signature import Array


def values(router: Router, outputs: Mapping[str, Array]) -> Array:
    """What a router reads of an engine's outputs, float64 (n,): an answer is kept from the threshold on.

    Minus infinity where the answer is not finite, so that no threshold keeps it.

    Args:
        router: of the ladder.
        outputs: by name, logits or vectors (n, C) first; for `redundancy` with that output.
    """
    first_nC = next(iter(outputs.values()))
    if router == "confidence":
        return margins(first_nC)
    value_n = outputs[REDUNDANCY].astype(np.float64).reshape(len(first_nC))
    finite_n = np.isfinite(first_nC).all(axis=1) & np.isfinite(value_n)
    return np.where(finite_n, value_n, -np.inf)


def margins(logits_nC: Array) -> Array:
    """How sure each answer is, float64 (n,): the probability of its class less that of the second, 0 to 1.

    Minus infinity where the logits are not finite, or there is one class only, so that no threshold keeps the answer.
    """
    if logits_nC.shape[1] < 2:
        return np.full(len(logits_nC), -np.inf)
    finite_n: Array = np.asarray(np.isfinite(logits_nC).all(axis=1))
    shifted_nC = np.where(finite_n[:, None], logits_nC, 0).astype(np.float64)
    shifted_nC -= shifted_nC.max(axis=1, keepdims=True)
    exp_nC = np.exp(shifted_nC)
    second_n2 = np.partition(exp_nC, exp_nC.shape[1] - 2, axis=1)[:, -2:]
    margin_n: Array = (second_n2[:, 1] - second_n2[:, 0]) / exp_nC.sum(axis=1)
    return np.where(finite_n, margin_n, -np.inf)
