"""What the texts of `clip_digits` say and how they are read: prompts, captions by a formula, and a tokenizer.

A caption follows from the 8x8 scan alone:

    a THIN|REGULAR|BOLD NARROW|MEDIUM|WIDE scan of the digit ZERO..NINE leaning left|standing upright|leaning right

With ink i(y, x) >= 0 in the cell of row y and column x (0 to 16 in a scan), M = sum of i, means and central moments
weighted by ink (rows counted downwards):

    weight: M / 16, in dark cells          thin below 18.5, bold above 20.5
    width:  sqrt(mu_xx), in columns        narrow below 1.2, wide above 1.32
    slant:  -mu_xy / mu_yy                 leaning left below -0.08, leaning right above 0.08

The thresholds are round numbers near the terciles of the scans that the model is trained on.

Shape suffixes: B scans or texts, H rows, W columns.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.errors import UsageError, nearest
from exporter.models.shipped.digits import SCAN_WHITE

CONTEXT = 16
"""Token ids per text: a start, at most 14 words, an end, and padding."""

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WEIGHTS = ("thin", "regular", "bold")
WIDTHS = ("narrow", "medium", "wide")
SLANTS = ("leaning left", "standing upright", "leaning right")

TEMPLATES = (
    "a scan of the digit {}",
    "a scan of the number {}",
    "a small scan of a handwritten {}",
    "a picture of the digit {}",
    "the handwritten digit {}",
    "the number {} written by hand",
)

_WEIGHT_EDGES = (18.5, 20.5)
_WIDTH_EDGES = (1.2, 1.32)
_SLANT_EDGES = (-0.08, 0.08)

_PAD, _START, _END = 0, 1, 2
_MARKS = ("<pad>", "<start>", "<end>")
_FUNCTION_WORDS = (
    "a",
    "by",
    "digit",
    "hand",
    "handwritten",
    "number",
    "of",
    "picture",
    "scan",
    "small",
    "the",
)
VOCABULARY: tuple[str, ...] = (
    *_MARKS,
    *_FUNCTION_WORDS,
    "written",
    *DIGIT_WORDS,
    *WEIGHTS,
    *WIDTHS,
    *("leaning", "standing", "left", "right", "upright"),
)
"""Every word that the model knows; a word's place is its token id."""

_TOKEN_IDS = {word: place for place, word in enumerate(VOCABULARY)}


@dataclass(frozen=True, kw_only=True)
class ScanMoments:
    """What the formula needs to know of scans.

    Attributes:
        ink: float64 (B,), in dark cells.
        covariance_B22: float64, of column (first) and row (second, downwards), weighted by ink, in cells.
    """

    ink: npt.NDArray[np.float64]
    covariance_B22: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ScanLooks:
    """How scans look, as places in `WEIGHTS`, `WIDTHS` and `SLANTS`: int64, (B,) each."""

    weight: npt.NDArray[np.int64]
    width: npt.NDArray[np.int64]
    slant: npt.NDArray[np.int64]


def scan_moments(scans_BHW: npt.NDArray[np.uint8]) -> ScanMoments:
    """The moments of scans.

    Args:
        scans_BHW: (B, 8, 8), ink 0..16 per cell; every scan has some.
    """
    ink_BHW = scans_BHW.astype(np.float64)
    total_B = ink_BHW.sum(axis=(1, 2))
    row_H, column_W = np.arange(ink_BHW.shape[1]), np.arange(ink_BHW.shape[2])
    from_mean_BW = column_W - (ink_BHW.sum(axis=1) @ column_W / total_B)[:, None]
    from_mean_BH = row_H - (ink_BHW.sum(axis=2) @ row_H / total_B)[:, None]
    xx_B = np.einsum("bhw,bw,bw->b", ink_BHW, from_mean_BW, from_mean_BW) / total_B
    xy_B = np.einsum("bhw,bh,bw->b", ink_BHW, from_mean_BH, from_mean_BW) / total_B
    yy_B = np.einsum("bhw,bh,bh->b", ink_BHW, from_mean_BH, from_mean_BH) / total_B
    covariance_B22 = np.stack([xx_B, xy_B, xy_B, yy_B], axis=1).reshape(-1, 2, 2)
    return ScanMoments(ink=total_B / SCAN_WHITE, covariance_B22=covariance_B22)


def looks_of(moments: ScanMoments) -> ScanLooks:
    """The words for scans with these moments, by the formula above."""
    covariance_B22 = moments.covariance_B22
    slant_B = -covariance_B22[:, 0, 1] / covariance_B22[:, 1, 1]
    return ScanLooks(
        weight=np.digitize(moments.ink, _WEIGHT_EDGES),
        width=np.digitize(np.sqrt(covariance_B22[:, 0, 0]), _WIDTH_EDGES),
        slant=np.digitize(slant_B, _SLANT_EDGES),
    )


def caption(digit: int, weight: int, width: int, slant: int) -> str:
    """The full caption of a digit with these attributes, each a place in its words."""
    return f"a {WEIGHTS[weight]} {WIDTHS[width]} scan of the digit {DIGIT_WORDS[digit]} {SLANTS[slant]}"


def caption_scans(scans_BHW: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """One full caption per scan; scans that look alike share theirs.

    Args:
        scans_BHW: (B, 8, 8), ink 0..16 per cell.
        labels: int64 (B,), the digit of each scan.
    """
    looks = looks_of(scan_moments(scans_BHW))
    return tuple(map(caption, labels, looks.weight, looks.width, looks.slant))


def tokenize_words(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Token ids of texts: lower case, one id per word, punctuation left out; nothing is truncated or replaced.

    Args:
        texts: Each of 1 to 14 words of `VOCABULARY`.

    Returns:
        int64 (B, 16): start, words, end, padding.

    Raises:
        UsageError: A text has no word, too many, or one that the model was never trained on.
    """
    rows = [_token_ids(text) for text in texts]
    return np.array(rows, dtype=np.int64).reshape(len(rows), CONTEXT)


def _token_ids(text: str) -> list[int]:
    words = re.findall(r"\w+", text.lower())
    if not 1 <= len(words) <= CONTEXT - 2:
        raise UsageError(
            f'clip_digits cannot read "{text}": expected 1 to {CONTEXT - 2} words, got {len(words)}; shorten it'
        )
    for word in words:
        if word not in _TOKEN_IDS:
            known = VOCABULARY[len(_MARKS) :]
            raise UsageError(
                f'clip_digits does not know the word "{word}" in "{text}": expected words of {", ".join(known)}.'
                + nearest(word, known)
            )
    ids = [_START, *(_TOKEN_IDS[word] for word in words), _END]
    return ids + [_PAD] * (CONTEXT - len(ids))
