"""Fidelity against scikit-learn, scipy, torch and closed forms."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from sklearn.metrics.pairwise import cosine_similarity  # type: ignore[import-untyped]
from sklearn.neighbors import NearestNeighbors  # type: ignore[import-untyped]

from exporter.errors import ParityError, UsageError
from exporter.validation.fidelity import fidelity, neighbour_overlap, patch_fidelity, unit_rows

Array = npt.NDArray[Any]


def noisy_pair(images: int, width: int, *, noise: float = 0.5, seed: int = 0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    dense = generator.standard_normal((images, width), dtype=np.float32)
    return dense, dense + noise * generator.standard_normal((images, width), dtype=np.float32)


def nearest_by_scikit_learn(rows: Array, k: int) -> list[set[int]]:
    finder = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(rows.astype(np.float64))
    return [set(map(int, row)) for row in finder.kneighbors(return_distance=False)]  # itself is left out


def overlap_by_scikit_learn(dense: Array, engine: Array, k: int) -> float:
    sets = zip(nearest_by_scikit_learn(dense, k), nearest_by_scikit_learn(engine, k), strict=True)
    return 100 * float(np.mean([len(one & other) / k for one, other in sets]))


# --- one number per image --------------------------------------------------------------------------------------------


def test_kl_is_that_of_scipy_and_of_torch() -> None:
    dense, engine = noisy_pair(40, 17)

    found = fidelity([(dense, engine)], logits=True).kl

    by_scipy = rel_entr(softmax(np.float64(dense), 1), softmax(np.float64(engine), 1)).sum(axis=1).mean()
    by_torch = torch.nn.functional.kl_div(
        torch.from_numpy(engine).double().log_softmax(1),
        torch.from_numpy(dense).double().log_softmax(1),
        log_target=True,
        reduction="batchmean",
    )
    assert found == pytest.approx(float(by_scipy), rel=1e-12)
    assert found == pytest.approx(float(by_torch), rel=1e-12)


@pytest.mark.parametrize(
    ("dense", "engine", "expected"),
    [
        pytest.param([0.0, 0.0], [1000.0, 0.0], 500 - math.log(2), id="where a softmax would underflow"),
        pytest.param(
            [math.log(3), 0.0], [5.0, 5.0], 0.75 * math.log(1.5) + 0.25 * math.log(0.5), id="dense first"
        ),
    ],
)
def test_kl_is_of_dense_against_engine(dense: list[float], engine: list[float], expected: float) -> None:
    """p = (1/2, 1/2) and log q = (0, -1000): 1/2 (log 1/2) + 1/2 (log 1/2 + 1000); p = (3/4, 1/4), q = (1/2, 1/2)."""
    found = fidelity([(np.asarray([dense]), np.asarray([engine]))], logits=True).kl

    assert found == pytest.approx(expected, rel=1e-12)


def test_agreement_is_the_share_of_equal_first_classes() -> None:
    dense = np.asarray([[1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 2, 0]], np.float32)
    engine = np.asarray([[9, 0, 0], [1, 0, 0], [0, 0, 3], [5, 0, 0]], np.float32)

    assert fidelity([(dense, engine)], logits=True).top1_agreement == 75.0


def test_cosines_are_those_of_scikit_learn() -> None:
    dense, engine = noisy_pair(30, 8)

    found = fidelity([(dense, engine)], logits=False)

    expected = np.diag(cosine_similarity(dense.astype(np.float64), engine.astype(np.float64)))
    assert found.cosine_mean == pytest.approx(expected.mean(), rel=1e-12)
    assert found.cosine_min == pytest.approx(expected.min(), rel=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param([2.0, 0.0], [5.0, 5.0], math.cos(math.pi / 4), id="45 degrees"),
        pytest.param([1.0, 2.0], [-2.0, -4.0], -1.0, id="opposite"),
        pytest.param([0.0, 0.0], [0.0, 0.0], 1.0, id="both zero"),
        pytest.param([0.0, 0.0], [1.0, 0.0], 0.0, id="one zero"),
        pytest.param([1e-30, 0.0], [1e30, 0.0], 1.0, id="far apart in length"),
    ],
)
def test_cosine_of_vectors_at_a_known_angle(one: list[float], other: list[float], expected: float) -> None:
    pair = np.asarray([one], np.float32), np.asarray([other], np.float32)

    assert fidelity([pair], logits=False).cosine_min == pytest.approx(expected, abs=1e-12)


def test_embeddings_have_neither_agreement_nor_kl() -> None:
    found = fidelity([noisy_pair(5, 4)], logits=False)

    assert (found.top1_agreement, found.kl) == (None, None)


def test_axes_behind_the_first_are_one_vector() -> None:
    dense, engine = noisy_pair(12, 6)

    found = fidelity([(dense.reshape(12, 2, 3), engine.reshape(12, 2, 3))], logits=False)

    assert found == fidelity([(dense, engine)], logits=False)


# --- neighbours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "k"), [(2, 1), (7, 6), (11, 10), (12, 10), (256, 10), (257, 10), (600, 10)]
)
def test_neighbours_are_those_of_scikit_learn(images: int, k: int) -> None:
    dense, engine = noisy_pair(images, 16)

    found = fidelity([(dense, engine)], logits=False)

    assert found.neighbour_n == images
    assert found.neighbour_overlap == pytest.approx(overlap_by_scikit_learn(dense, engine, k))


def test_unrelated_embeddings_share_as_many_neighbours_as_chance_has_it() -> None:
    """10 of the 999 others in one set: each is in the other with 10/999, in all 10,000 draws, hence 1.0 +- 0.1 %."""
    one, _ = noisy_pair(1000, 32, seed=1)
    other, _ = noisy_pair(1000, 32, seed=2)

    assert neighbour_overlap(one, other) == pytest.approx(100 * 10 / 999, abs=0.5)


AXES = [(sign * scale, axis) for sign in (1, -1) for scale in (1, 4) for axis in range(3)]


@given(
    points=st.lists(st.tuples(st.sampled_from(AXES), st.sampled_from(AXES)), min_size=2, max_size=9),
    k=st.integers(1, 10),
)
def test_neighbours_as_near_are_taken_from_the_lowest_index_on(
    points: Sequence[tuple[tuple[int, int], tuple[int, int]]], k: int
) -> None:
    """On the coordinate axes every cosine is exactly -1, 0 or 1, so that ties are many and exact."""
    sides = list(zip(*points, strict=True))
    count, taken = len(points), min(k, len(points) - 1)

    def vectors(side: Sequence[tuple[int, int]]) -> Array:
        return np.asarray([[value if axis == place else 0.0 for axis in range(3)] for value, place in side])

    def nearest(side: Sequence[tuple[int, int]], of: int) -> set[int]:
        def cosine(other: int) -> int:
            same_axis = side[of][1] == side[other][1]
            return int(np.sign(side[of][0] * side[other][0])) if same_axis else 0

        return set(sorted((i for i in range(count) if i != of), key=lambda i: (-cosine(i), i))[:taken])

    found = neighbour_overlap(vectors(sides[0]), vectors(sides[1]), neighbours=k)

    shares = [len(nearest(sides[0], of) & nearest(sides[1], of)) / taken for of in range(count)]
    assert found == pytest.approx(100 * sum(shares) / count)


def test_neighbours_are_looked_for_among_the_first_images_only() -> None:
    dense, engine = noisy_pair(60, 8)
    chunks = [(dense[start : start + 16], engine[start : start + 16]) for start in range(0, 60, 16)]

    found = fidelity(chunks, logits=False, neighbour_limit=37)

    assert found.n == 60
    assert found.neighbour_n == 37
    assert found.neighbour_overlap == pytest.approx(overlap_by_scikit_learn(dense[:37], engine[:37], 10))


def test_single_image_has_no_neighbours() -> None:
    found = fidelity([noisy_pair(1, 4)], logits=True)

    assert (found.neighbour_overlap, found.neighbour_n) == (None, 1)


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 64])
def test_chunks_add_up_to_the_whole(size: int) -> None:
    dense, engine = noisy_pair(50, 9)
    empty = (dense[:0], engine[:0])
    parts = [(dense[start : start + size], engine[start : start + size]) for start in range(0, 50, size)]

    chunked = fidelity(iter([empty, *parts, empty]), logits=True)

    assert asdict(chunked) == pytest.approx(asdict(fidelity([(dense, engine)], logits=True)), rel=1e-12)


@pytest.mark.parametrize("chunks", [[], [(np.empty((0, 3)), np.empty((0, 3)))]])
def test_no_images_are_refused(chunks: list[tuple[Array, Array]]) -> None:
    with pytest.raises(UsageError, match="at least one readable image"):
        fidelity(chunks, logits=True)


@pytest.mark.parametrize("shape", [(4, 11), (3, 10), (4, 10, 1)])
def test_output_of_another_shape_is_an_engine_that_is_wrong(shape: tuple[int, ...]) -> None:
    with pytest.raises(ParityError, match=r"\(4, 10\), as the dense model's is, got"):
        fidelity([(np.zeros((4, 10)), np.zeros(shape))], logits=True)


# --- what a sceptic would try ----------------------------------------------------------------------------------------


def test_identical_outputs_are_perfect() -> None:
    dense, _ = noisy_pair(40, 10)

    found = fidelity([(dense, dense.copy())], logits=True)

    assert (found.top1_agreement, found.kl, found.neighbour_overlap, found.not_finite) == (
        100.0,
        0.0,
        100.0,
        0,
    )
    assert (found.cosine_mean, found.cosine_min) == pytest.approx((1.0, 1.0), abs=1e-15)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_output_that_is_not_finite_counts_as_the_worst(bad: float, side: int) -> None:
    dense, _ = noisy_pair(20, 10)
    pair = (dense, dense.copy())
    pair[side][3, 0] = bad

    found = fidelity([pair], logits=True)

    assert found.not_finite == 1
    assert found.top1_agreement == 95.0
    assert found.kl is None
    assert found.cosine_min == -1.0
    assert found.cosine_mean == pytest.approx((19 - 1) / 20)
    assert found.neighbour_overlap is not None
    assert found.neighbour_overlap < 95.0
    assert json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize("images", [3, 40])
def test_engine_of_nothing_but_nan_agrees_on_nothing(images: int) -> None:
    dense, _ = noisy_pair(images, 10)

    found = fidelity([(dense, np.full_like(dense, np.nan))], logits=True)

    assert (found.not_finite, found.top1_agreement, found.kl) == (images, 0.0, None)
    assert (found.cosine_mean, found.cosine_min, found.neighbour_overlap) == (-1.0, -1.0, 0.0)


def test_two_swapped_classes_show_as_computed_by_hand() -> None:
    """Of ten images two are hit; for them log p and log q differ by +-4 in the two classes: KL = 4 (p_high - p_low)."""
    dense = 4.0 * np.eye(10)
    engine = dense[:, [0, 1, 7, 3, 4, 5, 6, 2, 8, 9]]

    found = fidelity([(dense, engine)], logits=True)

    high, low = math.exp(4) / (math.exp(4) + 9), 1 / (math.exp(4) + 9)
    assert found.top1_agreement == 80.0
    assert found.kl == pytest.approx(0.2 * 4 * (high - low))
    assert (found.cosine_min, found.cosine_mean) == pytest.approx((0.0, 0.8))


def test_shift_of_all_logits_changes_no_probability() -> None:
    dense, _ = noisy_pair(10, 5)

    found = fidelity([(dense.astype(np.float64), dense.astype(np.float64) + 7)], logits=True)

    assert found.kl == pytest.approx(0.0, abs=1e-14)
    assert found.top1_agreement == 100.0
    assert found.cosine_min < 0.99


def test_unit_rows_keep_zeros_and_name_what_is_not_finite() -> None:
    found = unit_rows(np.asarray([[3.0, 4.0], [0.0, 0.0], [1.0, np.inf], [np.nan, 1.0]], np.float32))

    assert found[:2].tolist() == [[0.6, 0.8], [0.0, 0.0]]
    assert np.isnan(found[2:]).all()


# --- one number per patch --------------------------------------------------------------------------------------------


def test_cosines_of_patches_are_those_of_scikit_learn_and_leave_out_prefix_tokens() -> None:
    dense, engine = (each.reshape(3, 8, 5) for each in noisy_pair(3, 40))

    found = patch_fidelity([(dense[:2], engine[:2]), (dense[2:], engine[2:])], (2, 3))

    cosines = np.array(
        [
            [cosine_similarity(dense[b, t, None], engine[b, t, None]).item() for t in range(2, 8)]
            for b in range(3)
        ]
    )
    assert (found.mean, found.least) == pytest.approx((cosines.mean(), cosines.min()))
    assert np.array(found.grid) == pytest.approx(cosines.mean(axis=0).reshape(2, 3))


def test_patch_that_is_not_finite_counts_as_opposite() -> None:
    dense = np.ones((1, 2, 3), np.float32)
    engine = dense.copy()
    engine[0, 1, 0] = np.inf

    assert patch_fidelity([(dense, engine)], (1, 2)).grid[0] == pytest.approx((1.0, -1.0))


def test_neighbours_of_large_outputs_are_looked_for_among_fewer_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules[patch_fidelity.__module__], "_NEIGHBOUR_NUMBERS", 20)
    tokens = np.random.default_rng(0).standard_normal((3, 2, 5), dtype=np.float32)

    assert fidelity([(tokens, tokens)], logits=False).neighbour_n == 2
