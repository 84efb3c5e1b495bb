"""Retrieval against a brute-force definition in plain Python, and against what chance gives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics.pairwise import cosine_similarity  # type: ignore[import-untyped]

from exporter.errors import InternalError, UsageError
from exporter.records import Recall, Retrieval
from exporter.validation.retrieval import (
    NEVER,
    Ranks,
    rank_pairs,
    recalls,
    report_retrieval,
)

Array = npt.NDArray[Any]
Pairs = list[tuple[int, int]]
Rows = Sequence[Sequence[float]]

AXES = [[scale * (axis == place) for axis in range(3)] for scale in (1, 3, -2) for place in range(3)]


@st.composite
def many_to_many(draw: st.DrawFn, images: int, texts: int) -> Pairs:
    """Draw pairs that leave no image and no text out."""
    pairs = {(image, draw(st.integers(0, texts - 1))) for image in range(images)}
    pairs |= {(draw(st.integers(0, images - 1)), text) for text in range(texts)}
    return draw(st.permutations(sorted(pairs)))


def brute_recall(queries: Rows, gallery: Rows, pairs: Pairs, k: int) -> float:
    """Sort the gallery for each query, the wrong before the right where they are as near, and look at the first k."""
    found = 0
    for query, vector in enumerate(queries):
        right = {answer for other, answer in pairs if other == query}
        order = sorted(range(len(gallery)), key=lambda i: (-brute_cosine(vector, gallery[i]), i in right))
        found += bool(right & set(order[:k]))
    return 100 * found / len(queries)


def brute_cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    lengths = sum(a * a for a in one) ** 0.5 * sum(b * b for b in other) ** 0.5
    return round(product / lengths, 12) if lengths else 0.0


def retrieval(images_IC: Array, texts_TC: Array, pairs: Pairs) -> Retrieval:
    return recalls(rank_pairs(images_IC, texts_TC, pairs))


def flipped(pairs: Pairs) -> Pairs:
    return [(two, one) for one, two in pairs]


@given(data=st.data(), images=st.integers(1, 14), texts=st.integers(1, 14), ties=st.booleans())
def test_recalls_are_those_of_the_definition(
    data: st.DataObject, images: int, texts: int, ties: bool
) -> None:
    pairs = data.draw(many_to_many(images, texts))
    vector = st.sampled_from(AXES) if ties else st.lists(st.integers(-9, 9), min_size=3, max_size=3)
    image_rows = data.draw(st.lists(vector, min_size=images, max_size=images))
    text_rows = data.draw(st.lists(vector, min_size=texts, max_size=texts))

    found = retrieval(np.asarray(image_rows, np.float32), np.asarray(text_rows, np.float32), pairs)

    for k, name in ((1, "r1"), (5, "r5"), (10, "r10")):
        forth = brute_recall(text_rows, image_rows, flipped(pairs), k)
        back = brute_recall(image_rows, text_rows, pairs, k)
        assert getattr(found.text_to_image, name) == pytest.approx(forth)
        assert getattr(found.image_to_text, name) == pytest.approx(back)
    assert (found.images, found.texts) == (images, texts)


NOISE = np.random.default_rng(0).standard_normal((50, 16))


@pytest.mark.parametrize(
    ("images", "texts", "expected"),
    [
        pytest.param(NOISE, 5 * NOISE, (100.0, 100.0, 100.0), id="its own embedding is found first"),
        pytest.param(
            np.ones((20, 4)), np.ones((20, 4)), (0.0, 0.0, 0.0), id="one point for all finds nothing"
        ),
        pytest.param(
            np.ones((4, 2)), np.ones((4, 2)), (0.0, 100.0, 100.0), id="beyond the number of answers"
        ),
    ],
)
def test_recalls_of_pairs_by_position(images: Array, texts: Array, expected: tuple[float, ...]) -> None:
    found = retrieval(images, texts, [(row, row) for row in range(len(images))])

    r1, r5, r10 = expected
    assert found.text_to_image == found.image_to_text == Recall(r1=r1, r5=r5, r10=r10)


def test_unrelated_embeddings_are_found_as_often_as_chance_has_it() -> None:
    """The right one of 500 is at any place with equal chance: R@10 is 10 in 500; tolerance: 99.9 % of Binomial."""
    generator = np.random.default_rng(3)
    images, texts = generator.standard_normal((2, 500, 64))

    found = retrieval(images, texts, [(row, row) for row in range(500)])

    fewest, most = binom.interval(0.999, 500, 10 / 500)
    assert fewest / 5 <= found.text_to_image.r10 <= most / 5
    assert fewest / 5 <= found.image_to_text.r10 <= most / 5


def test_any_of_several_captions_will_do() -> None:
    images = np.eye(2)
    texts = np.asarray(
        [[0.0, 1.0], [1.0, 0.1], [0.2, 1.0]]
    )  # the first is wrong about image 0, the second is not

    found = rank_pairs(images, texts, [(0, 0), (0, 1), (1, 2)])

    assert found.image_to_text.tolist() == [0, 1]  # text 0 is nearer to image 1 than its own
    assert found.text_to_image.tolist() == [1, 0, 0]


def test_equal_directions_tie_although_their_products_are_rounded() -> None:
    generator = np.random.default_rng(0)
    row, lengths = generator.standard_normal(771), generator.uniform(0.1, 10, (37, 1))
    texts = generator.standard_normal((37, 771))

    found = rank_pairs(lengths * row, texts, [(i, i) for i in range(37)])

    assert found.text_to_image.tolist() == [36] * 37


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embedding_that_is_not_finite_finds_nothing_and_is_not_found(bad: float) -> None:
    images, texts = np.eye(3), np.eye(3)
    images[1, 2] = bad

    found = rank_pairs(images, texts, [(0, 0), (1, 1), (2, 2)])

    assert found.image_to_text.tolist() == [0, NEVER, 0]
    assert found.text_to_image.tolist() == [0, NEVER, 0]
    assert recalls(found).text_to_image.r10 == pytest.approx(200 / 3)


def test_more_queries_than_fit_one_block_are_all_ranked() -> None:
    """3,000 texts by 1,000 images are more cosines than are computed at once."""
    generator = np.random.default_rng(0)
    images, texts = generator.standard_normal((1000, 4)), generator.standard_normal((3000, 4))

    found = rank_pairs(images, texts, [(text // 3, text) for text in range(3000)])

    cosines = cosine_similarity(texts, images)
    own = cosines[np.arange(3000), np.arange(3000) // 3]
    assert found.text_to_image.tolist() == (cosines > own[:, None] + 1e-12).sum(axis=1).tolist()
    best = own.reshape(1000, 3).max(axis=1)
    assert found.image_to_text.tolist() == (cosines > best + 1e-12).sum(axis=0).tolist()


def test_two_swapped_images_are_the_ones_that_are_lost() -> None:
    rows, pairs = np.eye(10), [(row, row) for row in range(10)]
    swapped = rows[[0, 1, 7, 3, 4, 5, 6, 2, 8, 9]]

    found = report_retrieval(
        {"dense": rank_pairs(rows, rows, pairs), "onnx": rank_pairs(swapped, rows, pairs)}
    )

    assert found.retrieval["dense"].text_to_image.r1 == 100.0
    assert found.retrieval["onnx"].text_to_image.r1 == found.retrieval["onnx"].image_to_text.r1 == 80.0
    assert found.difference["onnx"].text_to_image.r1 == -20.0
    assert set(found.difference) == {"onnx"}


def test_interval_of_recall_is_that_of_the_mean_paired_difference() -> None:
    """Of 400 texts, 60 are lost and 20 gained; of the images none."""
    dense = np.repeat([0, 0, 3, 3], [300, 60, 20, 20])
    engine = np.repeat([0, 1, 0, NEVER], [300, 60, 20, 20])
    same = np.zeros(80, np.int64)

    found = report_retrieval(
        {
            "dense": Ranks(text_to_image=dense, image_to_text=same),
            "onnx": Ranks(text_to_image=engine, image_to_text=same),
        }
    ).difference["onnx"]

    error = 100 * np.sqrt((80 / 400 - 0.1**2) / 400)
    assert found.text_to_image.r1 == pytest.approx(-10.0)
    assert found.text_to_image.interval == pytest.approx((-10 - 1.96 * error, -10 + 1.96 * error), abs=0.3)
    assert (found.image_to_text.r1, found.image_to_text.interval) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        pytest.param([(0, 0), (1, 1), (2, 0)], "image numbers 0 to 1, got 2", id="no such image"),
        pytest.param([(0, 0), (1, -1)], "text numbers 0 to 1, got -1", id="negative text"),
        pytest.param(
            [(0, 0), (0, 1)], "every image in at least one pair, but image 1", id="image without text"
        ),
        pytest.param(
            [(0, 0), (1, 0)], "every text in at least one pair, but text 1", id="text without image"
        ),
        pytest.param([], "but image 0", id="no pairs"),
    ],
)
def test_pairs_that_do_not_fit_are_named(pairs: Pairs, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        retrieval(np.eye(2), np.eye(2), pairs)


def test_no_images_are_refused() -> None:
    with pytest.raises(UsageError, match="there is no image"):
        retrieval(np.empty((0, 2)), np.eye(2), [])


def test_towers_of_different_widths_are_refused() -> None:
    with pytest.raises(UsageError, match=r"one width, got \(2, 2\) and \(3, 3\)"):
        retrieval(np.eye(2), np.eye(3), [(0, 0)])


@pytest.mark.parametrize("queries", [3, 5])
def test_contenders_over_other_queries_are_a_broken_promise(queries: int) -> None:
    one = Ranks(text_to_image=np.zeros(4, np.int64), image_to_text=np.zeros(4, np.int64))
    other = Ranks(text_to_image=np.zeros(queries, np.int64), image_to_text=np.zeros(4, np.int64))

    with pytest.raises(InternalError, match="equal numbers of queries"):
        report_retrieval({"dense": one, "onnx": other})
