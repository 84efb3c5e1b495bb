"""Fidelity: how close an engine's outputs are to dense eager PyTorch's, on images that need no labels.

In: chunks of outputs of the same images, the dense model's and the engine's. Out: one `Fidelity`. Parity asks whether
the engine computes what was compiled into it; this asks what merging changed. Memory: a few numbers per image, and the
outputs of the first `NEIGHBOUR_LIMIT` images.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from exporter.errors import ParityError, UsageError
from exporter.records import Fidelity, PatchFidelity
from exporter.targets import Array

NEIGHBOUR_LIMIT = 5000
"""Images among which neighbours are looked for: the first of the set."""

NEIGHBOURS = 10
"""Neighbours of each image that are compared."""

_NEIGHBOUR_NUMBERS = 1 << 25  # of each side that are kept for them, where an output is more than a row
_BLOCK = 256  # images whose similarities to all others are in memory at once


def fidelity(
    pairs: Iterable[tuple[Array, Array]], *, logits: bool, neighbour_limit: int = NEIGHBOUR_LIMIT
) -> Fidelity:
    """Compare outputs chunk by chunk.

    Args:
        pairs: the dense model's (B, ...) and the engine's, of equal shapes, in the order of the images.
        logits: whether the outputs are logits (B, classes), so that agreement and KL mean something.
        neighbour_limit: images among which neighbours are looked for, the first ones; fewer where the outputs are
            features of all tokens, or maps.

    Raises:
        ParityError: the engine's outputs have another shape than the dense model's.
        UsageError: there are no images.
    """
    chunks: list[dict[str, Array]] = []
    kept: list[tuple[Array, Array]] = []
    room = neighbour_limit
    for dense, engine in pairs:
        _check(dense, engine)
        chunks.append(_compare(dense, engine, logits=logits))
        if dense.ndim > 2 and len(dense) and not kept:
            room = min(room, _NEIGHBOUR_NUMBERS // dense[0].size)
        if room > 0 and len(dense):
            kept.append((_flat(dense[:room]), _flat(engine[:room])))
            room -= len(kept[-1][0])
    if not kept:
        raise UsageError("fidelity: expected at least one readable image, got none")
    joined = {name: np.concatenate([each[name] for each in chunks]) for name in chunks[0]}
    finite_n, cosine_n = joined["finite"], joined["cosine"]
    dense_NC, engine_NC = (np.concatenate(side) for side in zip(*kept, strict=True))
    return Fidelity(
        n=len(cosine_n),
        not_finite=int((~finite_n).sum()),
        top1_agreement=100 * float(joined["agrees"].mean()) if logits else None,
        kl=float(joined["kl"].mean()) if logits and finite_n.all() else None,
        cosine_mean=float(cosine_n.mean()),
        cosine_min=float(cosine_n.min()),
        neighbour_overlap=neighbour_overlap(dense_NC, engine_NC) if len(dense_NC) > 1 else None,
        neighbour_n=len(dense_NC),
    )


def patch_fidelity(pairs: Iterable[tuple[Array, Array]], grid: tuple[int, int]) -> PatchFidelity:
    """Compare the features of every patch.

    Args:
        pairs: the dense model's (B, T, C) and the engine's, of equal shapes; the last of the T tokens are the patches.
        grid: rows and columns of the patches.
    """
    rows, columns = grid
    sums_N, least, images = np.zeros(rows * columns), 1.0, 0
    for dense_BTC, engine_BTC in pairs:
        one_NC, other_NC = (
            side[:, -rows * columns :].reshape(-1, side.shape[2]).astype(np.float64)
            for side in (dense_BTC, engine_BTC)
        )
        cosines_BN = np.nan_to_num(_cosines(one_NC, other_NC), nan=-1.0).reshape(-1, rows * columns)
        sums_N += cosines_BN.sum(axis=0)
        least, images = min(least, float(cosines_BN.min(initial=1.0))), images + len(cosines_BN)
    means_GW = (sums_N / images).reshape(rows, columns)
    by_row = tuple(tuple(float(value) for value in row) for row in means_GW)
    return PatchFidelity(mean=float(means_GW.mean()), least=least, grid=by_row)


def neighbour_overlap(dense_NC: Array, engine_NC: Array, *, neighbours: int = NEIGHBOURS) -> float:
    """Percent of each image's nearest neighbours by cosine that two sets of outputs have in common, mean over images.

    Images as near as the last neighbour are taken from the lowest index on. What is not finite is no
    neighbour, and has none. Similarities are computed for a block of images at a time, never for all pairs at once.

    Args:
        dense_NC: outputs of at least two images.
        engine_NC: likewise, of the same images.
        neighbours: compared for each image; all others, if there are fewer.
    """
    count = len(dense_NC)
    k = min(neighbours, count - 1)
    shared = 0
    for dense_BN, engine_BN in zip(
        _similarities(unit_rows(dense_NC)), _similarities(unit_rows(engine_NC)), strict=True
    ):
        shared += int((_nearest(dense_BN, k) & _nearest(engine_BN, k)).sum())
    return 100 * shared / (count * k)


def unit_rows(rows: Array) -> npt.NDArray[np.float64]:
    """Rows (B, ...) as fp64 (B, C) of length 1, so that products are cosines.

    A row of zeros stays one: its cosine to anything is 0. A row that is not finite becomes not-a-number throughout.
    """
    flat_BC = _flat(rows).astype(np.float64)
    flat_BC[~np.isfinite(flat_BC).all(axis=1)] = np.nan
    norms_B1 = np.linalg.norm(flat_BC, axis=1, keepdims=True)
    unit_BC: npt.NDArray[np.float64] = flat_BC / np.where(norms_B1 == 0, 1.0, norms_B1)
    return unit_BC


def _compare(dense: Array, engine: Array, *, logits: bool) -> dict[str, Array]:
    """One number per image: whether both are finite, the cosine, and for logits the agreement and the KL."""
    one_BC, other_BC = _flat(dense).astype(np.float64), _flat(engine).astype(np.float64)
    finite_B = np.asarray(np.isfinite(one_BC).all(axis=1) & np.isfinite(other_BC).all(axis=1))
    found = {"finite": finite_B, "cosine": np.where(finite_B, _cosines(one_BC, other_BC), -1.0)}
    if logits:
        found["agrees"] = finite_B & (one_BC.argmax(axis=1) == other_BC.argmax(axis=1))
        found["kl"] = _kl(one_BC[finite_B], other_BC[finite_B])
    return found


def _cosines(one_BC: Array, other_BC: Array) -> Array:
    """Row by row; two rows of zeros are alike. Rounding may not carry a cosine past 1."""
    both_zero_B = ~one_BC.any(axis=1) & ~other_BC.any(axis=1)
    products_B = (unit_rows(one_BC) * unit_rows(other_BC)).sum(axis=1)
    return np.where(both_zero_B, 1.0, np.clip(products_B, -1.0, 1.0))


def _kl(dense_BC: Array, engine_BC: Array) -> Array:
    """KL(dense || engine) of each row's softmax, in nats, from differences of logarithms: no quotient, no overflow."""
    from scipy.special import log_softmax

    dense_log_BC, engine_log_BC = log_softmax(dense_BC, axis=1), log_softmax(engine_BC, axis=1)
    divergence_B: Array = (np.exp(dense_log_BC) * (dense_log_BC - engine_log_BC)).sum(axis=1)
    return divergence_B


def _similarities(unit_NC: Array) -> Iterator[Array]:
    """Cosines of a block of images to all, (B, N); to itself, and where they are not finite, minus infinity."""
    for start in range(0, len(unit_NC), _BLOCK):
        cosines_BN = unit_NC[start : start + _BLOCK] @ unit_NC.T
        cosines_BN[np.isnan(cosines_BN)] = -np.inf
        rows_B = np.arange(len(cosines_BN))
        cosines_BN[rows_B, start + rows_B] = -np.inf
        yield cosines_BN


def _nearest(cosines_BN: Array, k: int) -> Array:
    """Which k of each row are the highest, the lowest index first on ties; minus infinity never is."""
    count = cosines_BN.shape[1]
    last_B1 = np.partition(cosines_BN, count - k, axis=1)[:, count - k, None]
    above_BN, tied_BN = cosines_BN > last_B1, cosines_BN == last_B1
    open_B1 = k - above_BN.sum(axis=1, keepdims=True)
    chosen_BN: Array = above_BN | (tied_BN & (tied_BN.cumsum(axis=1) <= open_B1))
    return chosen_BN & (cosines_BN > -np.inf)


def _flat(rows: Array) -> Array:
    return rows.reshape(len(rows), math.prod(rows.shape[1:]))


def _check(dense: Array, engine: Array) -> None:
    if dense.shape != engine.shape:
        raise ParityError(
            f"fidelity: expected the engine's output to be {dense.shape}, as the dense model's is, "
            f"got {engine.shape}; build the bundle again"
        )
