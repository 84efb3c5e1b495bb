"""The texts that something is measured on: a table of text,label, or of texts alone.

In: a CSV file. Out: a `TextSet`. Labels are matched with classes as those of images are.
"""

from dataclasses import dataclass
from pathlib import Path

from exporter.errors import UsageError, quoted
from exporter.validation.class_labels import KnownClasses, LabelMatch, Labels, match_labels
from exporter.validation.tables import read_table


@dataclass(frozen=True, kw_only=True)
class TextSet:
    """Texts, and the class index of each.

    Attributes:
        name: of the data, as reports print it.
        texts: in the order of the file.
        labels: class indices; None if there are none.
        match: which class each of the user's labels was found to be.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[int, ...] | None = None
    match: LabelMatch | None = None


def read_texts(path: Path, classes: KnownClasses | None) -> TextSet:
    """Read a table of texts.

    Args:
        path: CSV with the header text,label; without classes a column text is enough.
        classes: that labels are matched with; None to leave labels out.

    Raises:
        UsageError: not such a file, or a label that is not the model's; with the line.
    """
    if path.is_dir():
        raise UsageError(
            f"{quoted(path)}: a text encoder is measured on a CSV file of text,label, got a folder"
        )
    columns = ("text",) if classes is None else ("text", "label")
    rows = read_table(path, columns, exact=classes is not None)
    texts = tuple(row.values[0] for row in rows)
    if classes is None:
        return TextSet(name=path.name, texts=texts)
    places = {row.values[1]: f"{quoted(path)}, line {row.line}" for row in reversed(rows)}
    ordered = {row.values[1]: places[row.values[1]] for row in rows}
    match = match_labels(Labels(places=ordered, kind="labels", data=quoted(path)), classes)
    index_of = match.index_of()
    return TextSet(
        name=path.name, texts=texts, labels=tuple(index_of[row.values[1]] for row in rows), match=match
    )
