"""The texts that something is measured on: a table of text,label, of texts alone, or of pairs with a score.

In: a CSV file. Out: a `TextSet`. Labels are matched with classes as those of images are.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import UsageError, quoted
from exporter.validation.class_labels import KnownClasses, LabelMatch, Labels, match_labels
from exporter.validation.tables import Row, read_header, read_table

PAIRS = ("text_a", "text_b", "score")


@dataclass(frozen=True, kw_only=True)
class ScoredPairs:
    """Pairs of texts by their positions, and how alike people said that they are: `scores[i]` is of `pairs[i]`."""

    pairs: tuple[tuple[int, int], ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class TextSet:
    """Texts, and the class index of each, or pairs of them.

    Attributes:
        name: of the data, as reports print it.
        texts: in the order of the file; those of pairs once each.
        labels: class indices; None if there are none.
        match: which class each of the user's labels was found to be.
        pairs: of the texts, with scores; None if there are none.
        notes: what of the file was not read, one sentence each.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[int, ...] | None = None
    match: LabelMatch | None = None
    pairs: ScoredPairs | None = None
    notes: tuple[str, ...] = ()


def read_texts(path: Path, classes: KnownClasses | None, *, labelled: bool = True) -> TextSet:
    """Read a table of texts.

    Args:
        path: CSV with the header text,label; without classes text_a,text_b,score as well; a column text is enough
            without classes or labels.
        classes: that labels are matched with; None for a model without classes, whose labels are left out with a note.
        labelled: whether to read labels and scores.

    Raises:
        UsageError: not such a file, a label that is not the model's, or a score that is no number; with the line.
    """
    if path.is_dir():
        raise UsageError(
            f"{quoted(path)}: a text encoder is measured on a CSV file of text,label, got a folder"
        )
    if classes is not None and labelled:
        return _with_labels(path, classes)
    header = read_header(path)
    if header == PAIRS and labelled:
        return _pairs(path)
    rows = read_table(path, ("text",), exact=False)
    left_out = "label" in header and labelled
    notes = ("its labels are left out: the model has no classes",) if left_out else ()
    return TextSet(name=path.name, texts=tuple(row.values[0] for row in rows), notes=notes)


def _with_labels(path: Path, classes: KnownClasses) -> TextSet:
    rows = read_table(path, ("text", "label"))
    places = {row.values[1]: f"{quoted(path)}, line {row.line}" for row in reversed(rows)}
    ordered = {row.values[1]: places[row.values[1]] for row in rows}
    match = match_labels(Labels(places=ordered, kind="labels", data=quoted(path)), classes)
    index_of = match.index_of()
    return TextSet(
        name=path.name,
        texts=tuple(row.values[0] for row in rows),
        labels=tuple(index_of[row.values[1]] for row in rows),
        match=match,
    )


def _pairs(path: Path) -> TextSet:
    rows = read_table(path, PAIRS)
    scores = tuple(_score(path, row) for row in rows)
    if len(set(scores)) == 1:
        raise UsageError(f"{path}: expected scores that differ, got {scores[0]:g} for every pair")
    texts = tuple(dict.fromkeys(text for row in rows for text in row.values[:2]))
    place = {text: position for position, text in enumerate(texts)}
    pairs = tuple((place[row.values[0]], place[row.values[1]]) for row in rows)
    return TextSet(name=path.name, texts=texts, pairs=ScoredPairs(pairs=pairs, scores=scores))


def _score(path: Path, row: Row) -> float:
    try:
        score = float(row.values[2])
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise UsageError(f"{path}, line {row.line}: expected a number as score, got {quoted(row.values[2])}")
    return score
