"""Retrieval: does a text find its image, and an image its text, among all others?

In: embeddings of images and texts and which belong together. Out: the rank of each query's best answer (`Ranks`), and
from those recalls and their paired differences (`RetrievalReport`). Queries are ranked by cosine in fp64, a block at a
time, so that no matrix of all pairs is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.errors import InternalError, UsageError
from exporter.records import Recall, RecallDifference, Retrieval, RetrievalDifference
from exporter.targets import Array
from exporter.validation.accuracy import paired_interval
from exporter.validation.fidelity import unit_rows

NEVER = int(np.iinfo(np.int64).max)
"""The rank of a query that finds none of its answers, because it or they are not finite."""

_TIE = 1e-12  # cosines of equal rows may differ by this much, since a product's sums have no fixed order
_BLOCK_ELEMENTS = 2**21  # 16 MB of cosines at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranks:
    """For every query, how many wrong answers come before its best right one: 0 is a hit at 1.

    Attributes:
        text_to_image: (T,) int64.
        image_to_text: (I,) int64.
    """

    text_to_image: npt.NDArray[np.int64]
    image_to_text: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RetrievalReport:
    """Recalls by contender, and differences by contender other than the baseline."""

    retrieval: Mapping[str, Retrieval]
    difference: Mapping[str, RetrievalDifference]


def rank_pairs(images_IC: Array, texts_TC: Array, pairs: Sequence[tuple[int, int]]) -> Ranks:
    """Rank all images for every text and all texts for every image.

    Any of a query's right answers will do. Ties are resolved against the query: a wrong answer that is exactly as near
    as the best right one comes before it, so that an encoder that maps everything to one point finds nothing.
    Embeddings that are not finite find nothing and are not found.

    Args:
        images_IC: embeddings, of any length.
        texts_TC: embeddings, of any length. A text that several images share stands here once.
        pairs: (image, text) by position, any number for each, at least one.

    Raises:
        UsageError: embeddings of different widths, a pair of something that is not there, or an image or text that
            belongs to nothing.
    """
    _check_widths(images_IC, texts_TC)
    pairs_P2 = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    _check_pairs(pairs_P2, (len(images_IC), len(texts_TC)))
    images, texts = unit_rows(images_IC), unit_rows(texts_TC)
    return Ranks(
        text_to_image=_ranks(texts, images, pairs_P2[:, ::-1]), image_to_text=_ranks(images, texts, pairs_P2)
    )


def recalls(ranks: Ranks) -> Retrieval:
    """Recall at 1, 5 and 10, both ways."""
    return Retrieval(
        text_to_image=_recall(ranks.text_to_image),
        image_to_text=_recall(ranks.image_to_text),
        images=len(ranks.image_to_text),
        texts=len(ranks.text_to_image),
    )


def report_retrieval(ranks: Mapping[str, Ranks], *, baseline: str = "dense") -> RetrievalReport:
    """Recalls of every contender, and their paired differences to the baseline.

    Args:
        ranks: by contender, over the same images and texts in the same order.
        baseline: one of the contenders.
    """
    sizes = {name: (len(each.image_to_text), len(each.text_to_image)) for name, each in ranks.items()}
    if baseline not in ranks or len(set(sizes.values())) != 1:
        raise InternalError(
            f"retrieval: expected equal numbers of queries, {baseline}'s among them, got {sizes}"
        )
    return RetrievalReport(
        retrieval={name: recalls(each) for name, each in ranks.items()},
        difference={
            name: RetrievalDifference(
                text_to_image=_difference(each.text_to_image, ranks[baseline].text_to_image),
                image_to_text=_difference(each.image_to_text, ranks[baseline].image_to_text),
            )
            for name, each in ranks.items()
            if name != baseline
        },
    )


def _ranks(queries_QC: Array, gallery_GC: Array, pairs_P2: Array) -> npt.NDArray[np.int64]:
    """Ranks of the best answers; pairs are (query, gallery)."""
    block = max(1, _BLOCK_ELEMENTS // len(gallery_GC))
    parts = []
    for start in range(0, len(queries_QC), block):
        cosines_BG = queries_QC[start : start + block] @ gallery_GC.T
        cosines_BG[np.isnan(cosines_BG)] = -np.inf
        right_BG = np.zeros(cosines_BG.shape, dtype=np.bool_)
        within = pairs_P2[(pairs_P2[:, 0] >= start) & (pairs_P2[:, 0] < start + block)]
        right_BG[within[:, 0] - start, within[:, 1]] = True
        best_B1 = np.where(right_BG, cosines_BG, -np.inf).max(axis=1, keepdims=True)
        before_B = ((cosines_BG >= best_B1 - _TIE) & ~right_BG).sum(axis=1)
        parts.append(np.where(best_B1[:, 0] > -np.inf, before_B, NEVER))
    return np.concatenate(parts)


def _recall(ranks: Array) -> Recall:
    r1, r5, r10 = (100 * float((ranks < k).mean()) for k in (1, 5, 10))
    return Recall(r1=r1, r5=r5, r10=r10)


def _difference(ranks: Array, baseline_ranks: Array) -> RecallDifference:
    points = 100.0 * ((ranks < 1).astype(np.float64) - (baseline_ranks < 1))
    return RecallDifference(r1=float(points.mean()), interval=paired_interval(points))


def _check_widths(images_IC: Array, texts_TC: Array) -> None:
    if images_IC.ndim != 2 or texts_TC.ndim != 2 or images_IC.shape[1] != texts_TC.shape[1]:
        raise UsageError(
            "pairs: expected image and text embeddings of one width, "
            f"got {images_IC.shape} and {texts_TC.shape}; take both towers from one model"
        )


def _check_pairs(pairs_P2: Array, sizes: tuple[int, int]) -> None:
    for column, (kind, count) in enumerate(zip(("image", "text"), sizes, strict=True)):
        used = np.unique(pairs_P2[:, column])
        strays = used[(used < 0) | (used >= count)]
        if len(strays):
            raise UsageError(f"pairs: expected {kind} numbers 0 to {count - 1}, got {strays[0]}")
        if count == 0 or len(used) < count:
            lone = np.setdiff1d(np.arange(count), used)
            which = f"{kind} {lone[0]} is in none" if len(lone) else f"there is no {kind}"
            raise UsageError(
                f"pairs: expected every {kind} in at least one pair, but {which}; leave it out or pair it"
            )
