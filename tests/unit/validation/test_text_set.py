"""Tables of texts become texts with labels, or pairs with scores; whatever is neither is refused with its line."""

from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.validation import KnownClasses, ScoredPairs, read_texts

KNOWN = KnownClasses(count=2, names=(("bad",), ("good",)))


def saved(folder: Path, content: str) -> Path:
    path = folder / "texts.csv"
    path.write_text(content, encoding="utf-8")
    return path


def test_labels_are_matched_with_classes_by_name(tmp_path: Path) -> None:
    found = read_texts(saved(tmp_path, 'text,label\n"dull, long",bad\nfine,Good\n'), KNOWN)

    assert found.texts == ("dull, long", "fine")
    assert found.labels == (0, 1)


def test_labels_for_a_model_without_classes_are_left_out_with_a_note(tmp_path: Path) -> None:
    path = saved(tmp_path, "text,label\nfine,1\n")

    found = read_texts(path, None)

    assert (found.texts, found.labels) == (("fine",), None)
    assert found.notes == ("its labels are left out: the model has no classes",)
    assert read_texts(path, None, labelled=False).notes == ()


def test_texts_of_pairs_are_read_once_each(tmp_path: Path) -> None:
    found = read_texts(saved(tmp_path, "text_a,text_b,score\na,b,5\nb,c,-0.5\nc,c,1e1\n"), None)

    assert found.texts == ("a", "b", "c")
    assert found.pairs == ScoredPairs(pairs=((0, 1), (1, 2), (2, 2)), scores=(5.0, -0.5, 10.0))


@pytest.mark.parametrize(
    ("content", "known", "complaint"),
    [
        pytest.param("text,label\na,bad\nb,worse\n", KNOWN, "texts.csv.*line 3.*worse", id="no-class"),
        pytest.param("text,label\na,0\nb,2\n", KNOWN, "texts.csv.*line 3.*2", id="no-index"),
        pytest.param("text\na\n", KNOWN, "expected the header text,label, got text", id="labels-missing"),
        pytest.param("text_a,text_b,score\na,b,1\n", KNOWN, "expected the header text,label", id="pairs-for-classes"),
        pytest.param("text_a,text_b,score\na,b,1\na,c,x\n", None, "line 3: expected a number as score", id="word"),
        pytest.param("text_a,text_b,score\na,b,nan\n", None, "line 2: expected a number as score", id="nan"),
        pytest.param("text_a,text_b,score\na,b,1\nb,c,1\n", None, "expected scores that differ", id="equal-scores"),
        pytest.param("text_a,score\na,1\n", None, "expected the header text,", id="half-a-pair"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(
    tmp_path: Path, content: str, known: KnownClasses | None, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_texts(saved(tmp_path, content), known)
